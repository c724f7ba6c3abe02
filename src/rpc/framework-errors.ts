import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import type { FailureReason } from "../failure.ts";

/** Whether the error was made by our mapping: only such errors have an ErrorInfo. */
export function isOurs(error: ConnectError): boolean {
  return error.details.some((detail) => "desc" in detail && detail.desc === ErrorInfoSchema);
}

/**
 * The reason in our table for an error that Connect made itself. Connect has no reasons of its own, so that its code and,
 * where one code has several causes, the constant begin of its sentence tell (tests send each of them over the wire).
 */
export function reasonOfFrameworkError({ code, rawMessage }: Pick<ConnectError, "code" | "rawMessage">): FailureReason {
  // The client reset its stream, for whatever reason it gave.
  if (rawMessage.startsWith("http/2 stream closed")) return "CALL_CANCELLED";
  switch (code) {
    case Code.InvalidArgument:
      return /^timeout \d+(\.\d+)?ms must be/.test(rawMessage) ? "DEADLINE_TOO_LONG" : "MALFORMED_REQUEST";
    case Code.ResourceExhausted:
      return rawMessage.includes("readMaxBytes") ? "REQUEST_TOO_LARGE" : "INTERNAL";
    case Code.Unimplemented:
      if (rawMessage.startsWith("unknown compression")) return "UNSUPPORTED_ENCODING";
      return rawMessage.startsWith("protocol error") ? "MALFORMED_REQUEST" : "NOT_IMPLEMENTED";
    case Code.Internal:
      // Bytes that are no message are the sender's fault; Connect says Internal.
      return CLIENT_FAULTS.some((begin) => rawMessage.startsWith(begin)) ? "MALFORMED_REQUEST" : "INTERNAL";
    case Code.Canceled:
    // The client closed its connection.
    case Code.Aborted:
      return "CALL_CANCELLED";
    case Code.DeadlineExceeded:
      return "DEADLINE_EXCEEDED";
    default:
      return "INTERNAL";
  }
}

const CLIENT_FAULTS = ["parse binary", "decompression failed", "received compressed envelope"];

/** What a client meant by resetting its stream (gRPC over HTTP/2, "HTTP2 Transport Mapping", Errors); undefined: no error. */
export function resetError(rstCode: number | undefined): ConnectError | undefined {
  const code = RESET_CODES[rstCode ?? 0];
  if (code === undefined) return undefined;
  return new ConnectError(`http/2 stream closed with error code 0x${(rstCode ?? 0).toString(16)}`, code);
}

const RESET_CODES: Readonly<Record<number, Code>> = {
  1: Code.Internal,
  2: Code.Internal,
  3: Code.Internal,
  4: Code.Internal,
  6: Code.Internal,
  7: Code.Unavailable,
  8: Code.Canceled,
  9: Code.Internal,
  10: Code.Internal,
  11: Code.ResourceExhausted,
  12: Code.PermissionDenied,
  13: Code.PermissionDenied,
};
