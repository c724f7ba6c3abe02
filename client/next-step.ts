import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema, RetryInfoSchema } from "../gen/google/rpc/error_details_pb.js";
import { TurnCursorSchema } from "../gen/parley/chat/v1/turn_pb.js";

/** What to do when a call has failed. */
export type NextStep =
  /** The call did not come through; the turn that is named, if one is, goes on. Call again, after `leastMs` at least. */
  | { readonly kind: "reconnect"; readonly turnId: string; readonly leastMs: number }
  /** The service takes no such call now. The same call can succeed after `leastMs`. */
  | { readonly kind: "wait"; readonly leastMs: number }
  /** The turn's log begins later: what is there is to be read after that sequence. */
  | { readonly kind: "skip"; readonly afterSequence: bigint }
  /** To call again would change nothing. */
  | { readonly kind: "fail" };

/** The reason of an error in the service's table of errors, such as RATE_LIMITED; empty: the error is not of the service. */
export function reasonOf(error: unknown): string {
  return ConnectError.from(error).findDetails(ErrorInfoSchema)[0]?.reason ?? "";
}

/**
 * Whether a call did not come through: the connection broke, nobody answered, or a replica goes away. What it asked for may
 * be done all the same; the same call finds out.
 */
export function isConnectionLost(error: unknown): boolean {
  return nextStepAfter(error).kind === "reconnect";
}

export function nextStepAfter(thrown: unknown): NextStep {
  const error = ConnectError.from(thrown);
  const { reason = "", metadata = {} } = error.findDetails(ErrorInfoSchema)[0] ?? {};
  if (reason === "TURN_LOG_TRIMMED") return { kind: "skip", afterSequence: BigInt(metadata.oldest_sequence ?? 1) - 1n };
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const leastMs = delay === undefined ? 0 : Number(delay.seconds) * 1_000 + delay.nanos / 1e6;
  // The cursor of a busy session is another turn's.
  const cursor = reason === "SESSION_BUSY" ? undefined : error.findDetails(TurnCursorSchema)[0];
  // It says where to read on, at once: another replica has the turn.
  if (cursor !== undefined) return { kind: "reconnect", turnId: cursor.turnId, leastMs: 0 };
  // An answer without a reason is not of the service but of something before it, such as a proxy, or there is none.
  const unheard = reason === "" ? !FINAL_CODES.has(error.code) : error.code === Code.Unavailable;
  if (unheard) return { kind: "reconnect", turnId: "", leastMs };
  return delay === undefined ? { kind: "fail" } : { kind: "wait", leastMs };
}

/**
 * Codes that whatever stands before the service does not take back in a moment. INVALID_ARGUMENT is none: without a reason it
 * is what Connect says of a stream that was cut, amid a message or before its end, and then ended as if it were whole.
 */
const FINAL_CODES: ReadonlySet<Code> = new Set([
  Code.NotFound,
  Code.PermissionDenied,
  Code.Unauthenticated,
  Code.Unimplemented,
]);
