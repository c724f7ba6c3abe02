import { Code, ConnectError } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { Failure, type FailureReason } from "../../src/failure.ts";
import { toConnectError } from "../../src/rpc/error-mapping.ts";
import { errorTable } from "../../src/rpc/error-table.ts";
import { type Problem, problemOf } from "../../web/src/problem.ts";
import { problemSentences } from "../../web/src/problem-sentences.ts";

// What the page would say for every error that the service has, without a browser.

const reasons = Object.keys(errorTable) as FailureReason[];
const FIELDS = [{ field: "message", description: "must have 1 to 10,000 characters" }];

/** Words for programs: names of fields, details, codes, RPCs. */
const PROGRAM_WORDS = /\b[a-z]+_[a-z_]+\b|RetryInfo|BadRequest|QuotaFailure|TurnCursor|ErrorInfo|\bdelay\b/;

/** Errors that the console's own calls never have: it sends well-formed requests of this release, and no deadline. */
const NOT_OF_THE_CONSOLE: readonly FailureReason[] = [
  "MALFORMED_REQUEST",
  "UNSUPPORTED_ENCODING",
  "GRPC_NOT_POSSIBLE",
  "UNKNOWN_METHOD",
  "UNKNOWN_SERVICE",
  "DEADLINE_TOO_LONG",
  "SESSION_EXISTS",
  "CONTINUE_NOT_POSSIBLE",
  "PREVIEW_STALE",
];

test.each(reasons.filter((reason) => !NOT_OF_THE_CONSOLE.includes(reason)))(
  "%s is told in words for people",
  (reason) => {
    const facts = reason === "INVALID_FIELD" ? { fields: FIELDS } : {};
    const problem = problemOf(toConnectError(new Failure(reason, facts)));
    expect(textOf(problem)).toMatch(/^[A-Z].*[.]$/);
    expect(textOf(problem)).not.toMatch(PROGRAM_WORDS);
    expect(problem.reason).toBe(reason);
    expect(textOf(problem).includes("Try again in 1 s.")).toBe(errorTable[reason].retryable);
  },
);

test("the console has sentences only for reasons that there are", () => {
  expect(Object.keys(problemSentences).filter((reason) => !(reason in errorTable))).toEqual([]);
});

test.each([
  [100, "1 s"],
  [1_000, "1 s"],
  [7_000, "7 s"],
  [7_400, "8 s"],
  [119_000, "119 s"],
  [121_000, "3 min"],
  [3_600_000, "60 min"],
])("a delay of %d ms is told as %s", (retryAfterMs, text) => {
  const problem = problemOf(toConnectError(new Failure("RATE_LIMITED", { retryAfterMs })));
  expect(problem.advice).toContain(`Try again in ${text}.`);
});

test("a limit that was hit is told", () => {
  const quotas = [{ subject: "user:u1", description: "at most 100 turns in 3600 seconds" }];
  const problem = problemOf(toConnectError(new Failure("RATE_LIMITED", { quotas })));
  expect(problem.advice).toContain("At most 100 turns in 3600 seconds.");
});

test("fetch that finds nobody is told as a service that cannot be reached", () => {
  const expected = "The service cannot be reached. Check that it is running, then try again.";
  expect(textOf(problemOf(new TypeError("Failed to fetch")))).toBe(expected);
  const wrapped = new ConnectError(
    "Failed to fetch",
    Code.Unknown,
    undefined,
    undefined,
    new TypeError("network error"),
  );
  expect(textOf(problemOf(wrapped))).toBe(expected);
});

test.each([
  [Code.Unavailable, "HTTP 502", "The service is not available. Try again in a moment."],
  [Code.Internal, "missing EndStreamResponse", "The answer did not come through whole. Try again in a moment."],
])("an error that is not of the service (%s %s) does not show its text", (code, text, expected) => {
  expect(textOf(problemOf(new ConnectError(text, code)))).toBe(expected);
});

function textOf({ sentence, advice }: Problem): string {
  return [sentence, ...advice].filter(Boolean).join(" ");
}
