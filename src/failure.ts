/**
 * Why something was refused or went wrong, in the words of the one error table (`rpc/error-table.ts`), which gives each
 * reason its status code, its sentence and whether a retry can help. Code below the RPC layer throws these and nothing else
 * that is meant for a caller.
 */
export class Failure extends Error {
  readonly reason: FailureReason;
  readonly facts: FailureFacts;

  constructor(reason: FailureReason, facts: FailureFacts = {}, options?: ErrorOptions) {
    super(reason, options);
    this.name = "Failure";
    this.reason = reason;
    this.facts = facts;
  }
}

/** Collects what is wrong with a request's fields: all of it is told at once. Descriptions give rules, never what the request said. */
export class WrongFields {
  readonly #fields: { readonly field: string; readonly description: string }[] = [];

  unless(right: boolean, field: string, description: string): void {
    if (!right) this.#fields.push({ field, description });
  }

  /** INVALID_FIELD, with each of them. */
  throwIfAny(): void {
    if (this.#fields.length > 0) throw new Failure("INVALID_FIELD", { fields: this.#fields });
  }
}

/** Reasons, as clients read them in `google.rpc.ErrorInfo.reason`. */
export type FailureReason =
  | "INVALID_FIELD"
  | "MALFORMED_REQUEST"
  | "REQUEST_TOO_LARGE"
  | "UNSUPPORTED_ENCODING"
  | "GRPC_NOT_POSSIBLE"
  | "UNKNOWN_METHOD"
  | "UNKNOWN_SERVICE"
  | "DEADLINE_TOO_LONG"
  | "NOT_IMPLEMENTED"
  | "SESSION_NOT_FOUND"
  | "SESSION_EXISTS"
  | "SESSION_DELETED"
  | "SESSION_BUSY"
  | "IDEMPOTENCY_KEY_REUSED"
  | "TURN_NOT_FOUND"
  | "TURN_LOG_TRIMMED"
  | "CURSOR_OUT_OF_RANGE"
  | "AGENT_TEAM_NOT_FOUND"
  | "APPROVAL_NOT_PENDING"
  | "CREDENTIALS_MISSING"
  | "CREDENTIALS_INVALID"
  | "CREDENTIALS_EXPIRED"
  | "IDENTITY_UNAVAILABLE"
  | "ROLE_MISSING"
  | "USER_NOT_ALLOWED"
  | "USE_CASE_NOT_ALLOWED"
  | "RATE_LIMITED"
  | "BUDGET_EXHAUSTED"
  | "CALL_EXCEEDS_BUDGET"
  | "PREVIEW_STALE"
  | "SESSION_QUEUE_FULL"
  | "CONTINUE_NOT_POSSIBLE"
  | "TURN_TOKEN_BUDGET"
  | "TURN_CANCELLED"
  | "TURN_INTERRUPTED"
  | "TURN_ROLLED_BACK"
  | "CALL_CANCELLED"
  | "DEADLINE_EXCEEDED"
  | "TURN_LOST"
  | "LEASE_LOST"
  | "MODEL_RATE_LIMITED"
  | "MODEL_REFUSED"
  | "MODEL_UNAVAILABLE"
  | "STORE_UNAVAILABLE"
  | "STORED_FORMAT_UNKNOWN"
  | "DRAINING"
  | "INTERNAL";

/** What the error details are made of. Never message text, keys or other content. */
export interface FailureFacts {
  /** How long to wait before a retry, in milliseconds; only where a retry can succeed. */
  readonly retryAfterMs?: number;
  /** The request's fields that were refused, each with a sentence. */
  readonly fields?: readonly { readonly field: string; readonly description: string }[];
  /** The limits that were hit, each with a sentence. */
  readonly quotas?: readonly { readonly subject: string; readonly description: string }[];
  /** Numbers and names that a program reads, as `google.rpc.ErrorInfo.metadata`. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** The turn that goes on without this call. */
  readonly cursor?: { readonly turnId: string; readonly lastSequence: bigint };
}
