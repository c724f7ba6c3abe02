import { Code } from "@connectrpc/connect";
import type { FailureReason } from "../failure.ts";

/** How a failure looks to a caller. */
export interface ErrorEntry {
  readonly code: Code;
  /** A sentence that a person can act on. */
  readonly message: string;
  /** Whether the same call can succeed later without a change; such errors carry RetryInfo. */
  readonly retryable: boolean;
}

/** The one table of errors. `docs/errors.md` says the same, and a test compares the two. */
export const errorTable: Readonly<Record<FailureReason, ErrorEntry>> = {
  INVALID_FIELD: entry(
    Code.InvalidArgument,
    "Some fields of the request are not valid; the BadRequest detail names each with its rule.",
  ),
  MALFORMED_REQUEST: entry(
    Code.InvalidArgument,
    "The request cannot be read; check that its encoding and the types of its fields are those of the proto.",
  ),
  REQUEST_TOO_LARGE: entry(Code.ResourceExhausted, "The request is larger than 1 MiB; send less at a time."),
  UNSUPPORTED_ENCODING: entry(
    Code.Unimplemented,
    "The content type or the compression is not known here; send application/json, application/proto, or their gRPC forms, with gzip, br or identity.",
  ),
  GRPC_NOT_POSSIBLE: entry(
    Code.Unimplemented,
    "The edge cannot speak gRPC, which needs HTTP trailers; use gRPC-Web or Connect here, or call a replica of the service.",
  ),
  UNKNOWN_METHOD: entry(Code.Unimplemented, "There is no such RPC here; server reflection lists those there are."),
  UNKNOWN_SERVICE: entry(Code.NotFound, "There is no such service here; server reflection lists those there are."),
  DEADLINE_TOO_LONG: entry(Code.InvalidArgument, "The deadline is longer than an hour; ask for a shorter one."),
  NOT_IMPLEMENTED: entry(
    Code.Unimplemented,
    "This release does not do that yet; see the changelog for the release that does.",
  ),
  SESSION_NOT_FOUND: entry(
    Code.NotFound,
    "There is no such session; it may have expired. Leave session_id empty to begin one.",
  ),
  SESSION_EXISTS: entry(Code.AlreadyExists, "The session_id is taken; choose another or leave it empty."),
  SESSION_DELETED: entry(Code.Aborted, "The session was deleted while its turn was running."),
  SESSION_BUSY: entry(
    Code.Aborted,
    "The session has a running turn, which the TurnCursor detail names; wait for it, or ask with another on_busy.",
  ),
  IDEMPOTENCY_KEY_REUSED: entry(
    Code.AlreadyExists,
    "The idempotency_key belongs to another request; use a new key for a new request.",
  ),
  TURN_NOT_FOUND: entry(Code.NotFound, "There is no such turn; it may have expired with its session."),
  TURN_LOG_TRIMMED: entry(
    Code.OutOfRange,
    "The turn's log no longer has the events after this sequence; the ErrorInfo has the oldest and the newest that it has.",
  ),
  CURSOR_OUT_OF_RANGE: entry(
    Code.OutOfRange,
    "The turn has ended before this sequence; the ErrorInfo has the oldest and the newest sequence of its log.",
  ),
  AGENT_TEAM_NOT_FOUND: entry(Code.NotFound, "There is no such agent team; leave agent_team empty for the default."),
  APPROVAL_NOT_PENDING: entry(
    Code.FailedPrecondition,
    "The session does not ask for this approval, or not any more; its last turn says which it asks for.",
  ),
  CREDENTIALS_MISSING: entry(
    Code.Unauthenticated,
    "The call has no credentials; send an API key or a token as `authorization: Bearer …`.",
  ),
  CREDENTIALS_INVALID: entry(
    Code.Unauthenticated,
    "The credentials are not accepted: the key is unknown or revoked, or the token is not from the issuer or not for this service.",
  ),
  CREDENTIALS_EXPIRED: entry(Code.Unauthenticated, "The token has expired; get a new one from its issuer."),
  IDENTITY_UNAVAILABLE: retryable(
    Code.Aborted,
    "The token cannot be checked, for its issuer's keys cannot be read now; try again after the delay.",
  ),
  ROLE_MISSING: entry(Code.PermissionDenied, "The credentials do not have the role that this RPC needs."),
  USER_NOT_ALLOWED: entry(
    Code.PermissionDenied,
    "The user_id is not the credentials' own; leave it empty, or call with the role chat:on_behalf.",
  ),
  USE_CASE_NOT_ALLOWED: entry(Code.PermissionDenied, "The credentials are not for this use_case."),
  RATE_LIMITED: retryable(
    Code.ResourceExhausted,
    "The user has started as many turns as a window of time allows; the QuotaFailure detail has the limit.",
  ),
  BUDGET_EXHAUSTED: retryable(
    Code.ResourceExhausted,
    "A budget does not have what the call may cost; the QuotaFailure detail has its limit, what is spent and held, and when it begins anew.",
  ),
  CALL_EXCEEDS_BUDGET: entry(
    Code.ResourceExhausted,
    "The call alone may cost more than a whole budget; shorten it, lower max_tokens, or have the budget raised.",
  ),
  PREVIEW_STALE: entry(
    Code.FailedPrecondition,
    "The preview_token is not of this difference any more; make a dry run again and look at it.",
  ),
  SESSION_QUEUE_FULL: retryable(
    Code.ResourceExhausted,
    "Too many turns wait for this session; let some of them end first.",
  ),
  CONTINUE_NOT_POSSIBLE: entry(
    Code.FailedPrecondition,
    "A turn cannot outlive its call at the edge; leave on_disconnect unspecified or call the service itself.",
  ),
  TURN_TOKEN_BUDGET: entry(
    Code.ResourceExhausted,
    "The message does not fit the turn's tokens; shorten it or raise max_tokens.",
  ),
  TURN_CANCELLED: entry(Code.Canceled, "The turn was cancelled; what was said so far is in the history."),
  TURN_INTERRUPTED: entry(
    Code.Aborted,
    "A newer message of the session ended the turn; what was said so far is in the history.",
  ),
  TURN_ROLLED_BACK: entry(
    Code.Aborted,
    "A newer message of the session ended the turn; nothing of it is in the history.",
  ),
  CALL_CANCELLED: entry(Code.Canceled, "The caller cancelled the call."),
  DEADLINE_EXCEEDED: entry(
    Code.DeadlineExceeded,
    "The call's deadline has passed; where there is a TurnCursor the turn goes on without it.",
  ),
  TURN_LOST: entry(Code.Aborted, "The replica that ran the turn was lost; send the message again."),
  LEASE_LOST: entry(Code.Aborted, "Another owner took over the session; read it for what stands."),
  MODEL_RATE_LIMITED: retryable(
    Code.ResourceExhausted,
    "The model's provider limits the rate of calls; try again after the delay.",
  ),
  MODEL_REFUSED: entry(
    Code.FailedPrecondition,
    "The model's provider refuses the call; an operator must check the model's name, key and endpoint.",
  ),
  MODEL_UNAVAILABLE: retryable(Code.Aborted, "The model did not answer or broke off; try again after the delay."),
  STORE_UNAVAILABLE: retryable(Code.Unavailable, "The session store does not answer; try again after the delay."),
  STORED_FORMAT_UNKNOWN: entry(
    Code.FailedPrecondition,
    "The session was written by a release that this one cannot read; use the newer release.",
  ),
  DRAINING: retryable(Code.Unavailable, "This replica is going away; try again, another will answer."),
  INTERNAL: entry(Code.Internal, "Something went wrong in the service; its log has the request's id."),
};

/** Waits that RetryInfo advises where nothing better is known, in milliseconds. */
export const DEFAULT_RETRY_MS = 1_000;

function entry(code: Code, message: string): ErrorEntry {
  return { code, message, retryable: false };
}

function retryable(code: Code, message: string): ErrorEntry {
  return { code, message, retryable: true };
}
