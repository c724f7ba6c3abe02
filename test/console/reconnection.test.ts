import { Code, ConnectError } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { Failure, type FailureReason } from "../../src/failure.ts";
import { toConnectError } from "../../src/rpc/error-mapping.ts";
import { errorTable } from "../../src/rpc/error-table.ts";
import { createPatience, nextStepAfter } from "../../web/src/reconnection.ts";

// What the page does when a call ends too early, without a browser.

const reasons = Object.keys(errorTable) as FailureReason[];
const CURSOR = { turnId: "t1", lastSequence: 7n };

test.each(reasons)("%s: called again only where that can help", (reason) => {
  const step = nextStepAfter(toConnectError(new Failure(reason)));
  const expected: Partial<Record<FailureReason, string>> = {
    STORE_UNAVAILABLE: "again",
    DRAINING: "again",
    TURN_NOT_FOUND: "gone",
    CURSOR_OUT_OF_RANGE: "gone",
    TURN_LOG_TRIMMED: "skip",
  };
  expect(step.kind).toBe(expected[reason] ?? "fail");
});

test.each<FailureReason>(["DRAINING", "LEASE_LOST", "STORE_UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL"])(
  "%s with a cursor: the turn is read on at once",
  (reason) => {
    const step = nextStepAfter(toConnectError(new Failure(reason, { cursor: CURSOR })));
    expect(step).toEqual({ kind: "again", turnId: "t1", atOnce: true, leastMs: 0 });
  },
);

test("the cursor of a busy session is another turn's", () => {
  expect(nextStepAfter(toConnectError(new Failure("SESSION_BUSY", { cursor: CURSOR }))).kind).toBe("fail");
});

test("a delay that the service asks for is kept, within bounds", () => {
  const asked = (retryAfterMs: number) => nextStepAfter(toConnectError(new Failure("DRAINING", { retryAfterMs })));
  expect(asked(2_500)).toMatchObject({ leastMs: 2_500 });
  expect(asked(3_600_000)).toMatchObject({ leastMs: 8_000 });
});

test("a log that begins later is read from there", () => {
  const trimmed = new Failure("TURN_LOG_TRIMMED", { metadata: { oldest_sequence: "120", newest_sequence: "10119" } });
  expect(nextStepAfter(toConnectError(trimmed))).toEqual({ kind: "skip", afterSequence: 119n });
});

test.each([
  ["a fetch that failed", new TypeError("Failed to fetch"), "again"],
  ["a gateway that has nobody behind it", new ConnectError("HTTP 503", Code.Unavailable), "again"],
  ["a stream without an end", new ConnectError("missing EndStreamResponse", Code.Internal), "again"],
  ["a door that is closed", new ConnectError("HTTP 403", Code.PermissionDenied), "fail"],
  ["another server", new ConnectError("HTTP 404", Code.Unimplemented), "fail"],
])("%s: %s", (_, thrown, kind) => {
  expect(nextStepAfter(thrown).kind).toBe(kind);
});

test("the first attempt after a cursor waits for nothing; then waits double, up to a bound", () => {
  const patience = createPatience();
  expect(patience.nextWaitMs({ atOnce: true, leastMs: 0 })).toBe(0);
  const waits = Array.from({ length: 8 }, () => patience.nextWaitMs({ atOnce: true, leastMs: 0 }) ?? Number.NaN);
  for (const [at, middle] of [600, 1_200, 2_400, 4_800, 8_000, 8_000, 8_000, 8_000].entries()) {
    expect(waits[at]).toBeGreaterThanOrEqual(middle * 0.75);
    expect(waits[at]).toBeLessThanOrEqual(middle * 1.25);
  }
  patience.heard();
  expect(patience.nextWaitMs({ atOnce: false, leastMs: 0 })).toBeLessThanOrEqual(375);
  expect(patience.nextWaitMs({ atOnce: false, leastMs: 5_000 })).toBe(5_000);
});
