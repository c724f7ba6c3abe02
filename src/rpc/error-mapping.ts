import { create, type DescFile, type DescMessage, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  file_google_rpc_error_details,
  QuotaFailureSchema,
  RetryInfoSchema,
} from "../../gen/google/rpc/error_details_pb.js";
import { file_parley_chat_v1_turn, TurnCursorSchema } from "../../gen/parley/chat/v1/turn_pb.js";
import { Failure } from "../failure.ts";
import { DEFAULT_RETRY_MS, errorTable } from "./error-table.ts";
import { isOurs, reasonOfFrameworkError } from "./framework-errors.ts";

/** `google.rpc.ErrorInfo.domain` of all errors. */
const ERROR_DOMAIN = "parley";

/** The files of all details that an error can have, for clients that look them up by reflection. */
export const errorDetailFiles: readonly DescFile[] = [file_google_rpc_error_details, file_parley_chat_v1_turn];

/**
 * The error that a caller gets: code and sentence of the table, with details. Errors that Connect made get the reason
 * that fits; what is neither theirs nor a {@link Failure} is a defect of ours and comes out as INTERNAL. No text of
 * theirs reaches anybody but the log, as `cause`.
 */
export function toConnectError(error: unknown): ConnectError {
  if (error instanceof ConnectError && isOurs(error)) return error;
  const failure = error instanceof Failure ? error : new Failure(reasonOfOther(error), {}, { cause: error });
  const { code, message, retryable } = errorTable[failure.reason];
  const { retryAfterMs = DEFAULT_RETRY_MS, quotas, cursor, metadata = {} } = failure.facts;
  // What cannot be read has no field to name; the rule is told all the same.
  const unreadable = code === Code.InvalidArgument ? [{ field: "", description: message }] : undefined;
  const fields = failure.facts.fields ?? unreadable;

  const details = [
    detail(ErrorInfoSchema, { domain: ERROR_DOMAIN, reason: failure.reason, metadata: { ...metadata } }),
  ];
  if (retryable) details.push(detail(RetryInfoSchema, { retryDelay: durationFromMs(Math.ceil(retryAfterMs)) }));
  if (fields !== undefined)
    details.push(detail(BadRequestSchema, { fieldViolations: fields.map((field) => ({ ...field })) }));
  if (quotas !== undefined)
    details.push(detail(QuotaFailureSchema, { violations: quotas.map((quota) => ({ ...quota })) }));
  if (cursor !== undefined) details.push(detail(TurnCursorSchema, cursor));
  return new ConnectError(message, code, undefined, details, failure);
}

function reasonOfOther(error: unknown) {
  return error instanceof ConnectError ? reasonOfFrameworkError(error) : "INTERNAL";
}

type Detail = { desc: DescMessage; value: MessageInitShape<DescMessage> };

function detail<Desc extends DescMessage>(desc: Desc, value: MessageInitShape<Desc>): Detail {
  return { desc, value: create(desc, value) };
}
