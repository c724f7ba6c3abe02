import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createRegistry } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { codeFromString, codeToString, errorToJson } from "@connectrpc/connect/protocol-connect";
import { describe, expect, test } from "vitest";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { TurnCursorSchema } from "../../gen/parley/chat/v1/turn_pb.js";
import { Failure, type FailureReason } from "../../src/failure.ts";
import { errorDetailFiles, toConnectError } from "../../src/rpc/error-mapping.ts";
import { DEFAULT_RETRY_MS, errorTable } from "../../src/rpc/error-table.ts";

const docs = readFileSync(join(import.meta.dirname, "../../docs/errors.md"), "utf8");

/** The rows of the table of reasons, cell by cell. */
const rows = docs
  .split("\n")
  .filter((line) => /^\| `[A-Z_]+` \|/.test(line))
  .map((line) => line.slice(2, -2).split(" | "));

const entries = Object.entries(errorTable) as [FailureReason, (typeof errorTable)[FailureReason]][];

test("the docs have a row for each reason, with its code, sentence and whether to retry, and no row for any other", () => {
  const expected = entries.map(([reason, { code, retryable, message }]) => [
    `\`${reason}\``,
    `\`${grpcName(code)}\``,
    retryable ? "yes" : "no",
    message,
  ]);
  expect(rows.map((row) => row.slice(0, 4))).toEqual(expected);
});

test("the docs say of each reason when it happens and what to do", () => {
  for (const row of rows) {
    expect(row).toHaveLength(6);
    for (const cell of row.slice(4)) expect(cell).toMatch(/^\S.*[.…)]$/);
  }
});

describe.each(entries)("%s", (reason, { code, message, retryable }) => {
  test("is told in a sentence, with its reason, and RetryInfo where a retry can help", () => {
    const error = toConnectError(new Failure(reason, {}, { cause: new Error("secret parser text") }));
    expect([error.code, error.rawMessage]).toEqual([code, message]);
    expect(message).toMatch(/^[A-Z].+\.$/);
    expect(error.findDetails(ErrorInfoSchema)).toMatchObject([{ domain: "parley", reason }]);
    const retries = error.findDetails(RetryInfoSchema);
    expect(retries.map(({ retryDelay }) => Number(retryDelay?.seconds) * 1_000)).toEqual(
      retryable ? [DEFAULT_RETRY_MS] : [],
    );
    expect(error.findDetails(BadRequestSchema)).toHaveLength(code === Code.InvalidArgument ? 1 : 0);
    expect(sent(error)).not.toContain("secret");
  });
});

test("a retry is never advised where it cannot help, whatever the failure says", () => {
  const error = toConnectError(new Failure("MODEL_REFUSED", { retryAfterMs: 5_000 }));
  expect(error.findDetails(RetryInfoSchema)).toEqual([]);
});

test("advice on when to retry is passed on, rounded up to whole milliseconds", () => {
  const error = toConnectError(new Failure("MODEL_RATE_LIMITED", { retryAfterMs: 7_000.2 }));
  expect(error.findDetails(RetryInfoSchema)).toMatchObject([{ retryDelay: { seconds: 7n, nanos: 1_000_000 } }]);
});

test("a turn that goes on is named", () => {
  const cursor = { turnId: "t.1", lastSequence: 7n };
  const error = toConnectError(new Failure("DRAINING", { cursor }));
  expect(error.findDetails(TurnCursorSchema)).toMatchObject([cursor]);
});

test.each([
  ["an exception", new TypeError("secret: cannot read properties of undefined")],
  ["a string", "secret"],
  ["nothing", undefined],
  ["an error that somebody else's server sent", new ConnectError("secret", Code.DataLoss)],
])("%s becomes INTERNAL, and its text stays here", (_, thrown) => {
  const error = toConnectError(thrown);
  expect([error.code, error.rawMessage]).toEqual([Code.Internal, errorTable.INTERNAL.message]);
  expect(sent(error)).not.toContain("secret");
});

test("an error that was mapped stays as it is", () => {
  const error = toConnectError(new Failure("SESSION_EXISTS"));
  expect(toConnectError(error)).toBe(error);
});

/** What goes over the wire, details in words. */
function sent(error: ConnectError): string {
  return JSON.stringify(errorToJson(error, { registry: createRegistry(...errorDetailFiles) }));
}

/** As google.rpc.Code spells it. */
function grpcName(code: Code): string {
  const name = codeToString(code);
  expect(codeFromString(name)).toBe(code);
  return name.toUpperCase().replace("CANCELED", "CANCELLED");
}
