import { Code, ConnectError } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { nextStepAfter } from "../../client/next-step.ts";
import { createBackoff } from "../../client/retries.ts";
import { Failure, type FailureReason } from "../../src/failure.ts";
import { toConnectError } from "../../src/rpc/error-mapping.ts";
import { errorTable } from "../../src/rpc/error-table.ts";

// What a client does when a call has failed.

const reasons = Object.keys(errorTable) as FailureReason[];
const CURSOR = { turnId: "t1", lastSequence: 7n };

test.each(reasons)("%s: called again only where that can help", (reason) => {
  const step = nextStepAfter(toConnectError(new Failure(reason)));
  const expected: Partial<Record<FailureReason, string>> = {
    STORE_UNAVAILABLE: "reconnect",
    DRAINING: "reconnect",
    TURN_LOG_TRIMMED: "skip",
  };
  expect(step.kind).toBe(expected[reason] ?? (errorTable[reason].retryable ? "wait" : "fail"));
});

test.each<FailureReason>(["DRAINING", "LEASE_LOST", "STORE_UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL"])(
  "%s with a cursor: the turn is read on at once",
  (reason) => {
    const step = nextStepAfter(toConnectError(new Failure(reason, { cursor: CURSOR })));
    expect(step).toEqual({ kind: "reconnect", turnId: "t1", leastMs: 0 });
  },
);

test("the cursor of a busy session is another turn's", () => {
  expect(nextStepAfter(toConnectError(new Failure("SESSION_BUSY", { cursor: CURSOR }))).kind).toBe("fail");
});

test.each<FailureReason>(["DRAINING", "RATE_LIMITED"])("%s: the delay that the service asks for is kept", (reason) => {
  expect(nextStepAfter(toConnectError(new Failure(reason, { retryAfterMs: 2_500 })))).toMatchObject({ leastMs: 2_500 });
});

test("a log that begins later is read from there", () => {
  const trimmed = new Failure("TURN_LOG_TRIMMED", { metadata: { oldest_sequence: "120", newest_sequence: "10119" } });
  expect(nextStepAfter(toConnectError(trimmed))).toEqual({ kind: "skip", afterSequence: 119n });
});

test.each([
  ["a fetch that failed", new TypeError("Failed to fetch"), "reconnect"],
  ["a gateway that has nobody behind it", new ConnectError("HTTP 503", Code.Unavailable), "reconnect"],
  ["a stream without an end", new ConnectError("missing EndStreamResponse", Code.Internal), "reconnect"],
  [
    "a stream that is cut within a message",
    new ConnectError("protocol error: incomplete envelope", Code.InvalidArgument),
    "reconnect",
  ],
  ["a door that is closed", new ConnectError("HTTP 403", Code.PermissionDenied), "fail"],
  ["another server", new ConnectError("HTTP 404", Code.Unimplemented), "fail"],
])("%s: %s", (_, thrown, kind) => {
  expect(nextStepAfter(thrown).kind).toBe(kind);
});

test("the first attempt after a cursor waits for nothing; then waits double, up to a bound", () => {
  const backoff = createBackoff();
  const waitMs = ({ atOnce = false, leastMs = 0, patienceMs = 120_000 }) =>
    backoff.nextWaitMs({ atOnce, leastMs, patienceMs });
  expect(waitMs({ atOnce: true })).toBe(0);
  const waits = Array.from({ length: 8 }, () => waitMs({ atOnce: true }) ?? Number.NaN);
  for (const [at, middle] of [600, 1_200, 2_400, 4_800, 8_000, 8_000, 8_000, 8_000].entries()) {
    expect(waits[at]).toBeGreaterThanOrEqual(middle * 0.75);
    expect(waits[at]).toBeLessThanOrEqual(middle * 1.25);
  }
  expect(waitMs({ patienceMs: -1 })).toBeUndefined();
  backoff.reset();
  expect(waitMs({})).toBeLessThanOrEqual(375);
  const asked = waitMs({ leastMs: 5_000 });
  expect(asked).toBeGreaterThanOrEqual(5_000);
  expect(asked).toBeLessThanOrEqual(6_250);
});
