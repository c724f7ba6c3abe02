import { Code, ConnectError } from "@connectrpc/connect";
import { expect } from "vitest";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  QuotaFailureSchema,
  RetryInfoSchema,
} from "../../gen/google/rpc/error_details_pb.js";
import { TurnCursorSchema } from "../../gen/parley/chat/v1/turn_pb.js";
import type { FailureReason } from "../../src/failure.ts";
import { errorTable } from "../../src/rpc/error-table.ts";

/** The error that a call ends with. */
export async function refusalOf(call: Promise<unknown>): Promise<ConnectError> {
  const outcome = await call.then(
    () => "the call went well",
    (error: unknown) => error,
  );
  expect(outcome).toBeInstanceOf(ConnectError);
  return outcome as ConnectError;
}

/** Reads a stream to its end. */
export async function drained<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of stream) items.push(item);
  return items;
}

/** What a refusal must be, whatever the wire. */
export interface ExpectedRefusal {
  readonly code: Code;
  readonly reason: FailureReason;
  /** Fields that BadRequest names, in their order. Default, with INVALID_ARGUMENT: one without a name. */
  readonly fields?: readonly string[];
}

/**
 * Checks code, sentence and details of a refusal. The sentence is the table's to the letter, so that no text of a parser
 * or an exception is in it.
 */
export function expectRefusal(error: ConnectError | undefined, { code, reason, fields }: ExpectedRefusal): void {
  expect(error).toBeInstanceOf(ConnectError);
  if (error === undefined) return;
  const { message, retryable } = errorTable[reason];
  expect(error.findDetails(ErrorInfoSchema)).toMatchObject([{ domain: "parley", reason, metadata: {} }]);
  expect(Code[error.code]).toBe(Code[code]);
  expect(error.rawMessage).toBe(message);
  const named = error.findDetails(BadRequestSchema).map((bad) => bad.fieldViolations.map(({ field }) => field));
  expect(named).toEqual(code === Code.InvalidArgument ? [fields ?? [""]] : []);
  for (const { fieldViolations } of error.findDetails(BadRequestSchema)) {
    for (const { description } of fieldViolations) expect(description).toMatch(/\S/);
  }
  expect(error.findDetails(RetryInfoSchema)).toHaveLength(retryable ? 1 : 0);
  expect(error.findDetails(QuotaFailureSchema)).toHaveLength(reason === "RATE_LIMITED" ? 1 : 0);
  expect(error.findDetails(TurnCursorSchema)).toEqual([]);
}

/** Signs of a stack trace, a parser or an exception in what a caller gets. */
export const LEAKS =
  /\bat .+:\d+:\d+|node_modules|\.[cm]?[tj]s\b|SyntaxError|TypeError|RangeError|Unexpected token|is not valid JSON|cannot decode|parse binary|illegal|invalid UTF8|premature EOF|readMaxBytes|message size/i;
