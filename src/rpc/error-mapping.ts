import { create, type DescMessage, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema, QuotaFailureSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { TurnCursorSchema } from "../../gen/parley/chat/v1/turn_pb.js";
import { Failure } from "../failure.ts";
import { DEFAULT_RETRY_MS, errorTable } from "./error-table.ts";

/** `google.rpc.ErrorInfo.domain` of all errors. */
export const ERROR_DOMAIN = "parley";

/**
 * The error that a caller gets: code and sentence of the table, with details. What is no {@link Failure} is a defect of
 * ours and comes out as INTERNAL; its text reaches nobody but the log, as `cause`.
 */
export function toConnectError(error: unknown): ConnectError {
  const failure = error instanceof Failure ? error : new Failure("INTERNAL", {}, { cause: error });
  const { code, message, retryable } = errorTable[failure.reason];
  const { retryAfterMs = DEFAULT_RETRY_MS, fields, quotas, cursor } = failure.facts;

  const details = [detail(ErrorInfoSchema, { domain: ERROR_DOMAIN, reason: failure.reason })];
  if (retryable) details.push(detail(RetryInfoSchema, { retryDelay: durationFromMs(Math.ceil(retryAfterMs)) }));
  if (fields !== undefined) details.push(detail(BadRequestSchema, { fieldViolations: fields.map((field) => ({ ...field })) }));
  if (quotas !== undefined) details.push(detail(QuotaFailureSchema, { violations: quotas.map((quota) => ({ ...quota })) }));
  if (cursor !== undefined) details.push(detail(TurnCursorSchema, cursor));
  return new ConnectError(message, code, undefined, details, failure);
}

type Detail = { desc: DescMessage; value: MessageInitShape<DescMessage> };

function detail<Desc extends DescMessage>(desc: Desc, value: MessageInitShape<Desc>): Detail {
  return { desc, value: create(desc, value) };
}
