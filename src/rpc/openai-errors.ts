import { codeToHttpStatus } from "@connectrpc/connect/protocol-connect";
import type { Failure, FailureReason } from "../failure.ts";
import { errorTable } from "./error-table.ts";
import { OpenAiRefusal } from "./openai-request.ts";
import { retryMsOf } from "./plain-http.ts";

/** An error as OpenAI's API tells it. */
export interface OpenAiError {
  readonly status: number;
  readonly header: Headers;
  readonly body: {
    error: { message: string; type: string; param: string | null; code: string };
  };
}

/** How one reason looks in that API. */
interface ErrorForm {
  readonly status: number;
  readonly type: string;
  readonly code: string;
  /** In the words of that API, where the table's sentence speaks of an RPC's fields. */
  readonly message?: string;
}

/**
 * Reasons for which OpenAI's API has a form of its own, so that clients that know it do what is right. All others have the
 * HTTP status of their code, and their reason in lower case as `code`. A model's failure is 424, never 5xx: a mesh ejects
 * pods for those. `docs/openai.md` says the same, and a test compares the two.
 */
export const OPENAI_FORMS: Readonly<Partial<Record<FailureReason, ErrorForm>>> = {
  INVALID_FIELD: invalid(400, "invalid_value"),
  MALFORMED_REQUEST: invalid(400, "invalid_json"),
  REQUEST_TOO_LARGE: invalid(413, "request_too_large"),
  UNSUPPORTED_ENCODING: invalid(415, "unsupported_content_type"),
  UNKNOWN_METHOD: invalid(
    404,
    "unknown_url",
    "Unknown request URL or method: there are POST /v1/chat/completions and GET /v1/models.",
  ),
  AGENT_TEAM_NOT_FOUND: invalid(
    404,
    "model_not_found",
    "There is no agent team of this name; GET /v1/models lists those there are.",
  ),
  CREDENTIALS_MISSING: invalid(401, "invalid_api_key"),
  CREDENTIALS_INVALID: invalid(401, "invalid_api_key"),
  CREDENTIALS_EXPIRED: invalid(401, "invalid_api_key"),
  TURN_TOKEN_BUDGET: invalid(
    400,
    "context_length_exceeded",
    "The messages do not fit the tokens that a turn may use here; shorten them.",
  ),
  RATE_LIMITED: { status: 429, type: "requests", code: "rate_limit_exceeded" },
  SESSION_QUEUE_FULL: { status: 429, type: "requests", code: "rate_limit_exceeded" },
  MODEL_RATE_LIMITED: { status: 429, type: "requests", code: "rate_limit_exceeded" },
  BUDGET_EXHAUSTED: { status: 429, type: "insufficient_quota", code: "insufficient_quota" },
  CALL_EXCEEDS_BUDGET: { status: 429, type: "insufficient_quota", code: "insufficient_quota" },
  MODEL_REFUSED: { status: 424, type: "server_error", code: "model_refused" },
  MODEL_UNAVAILABLE: { status: 424, type: "server_error", code: "model_unavailable" },
};

function invalid(status: number, code: string, message?: string): ErrorForm {
  return { status, type: "invalid_request_error", code, ...(message === undefined ? {} : { message }) };
}

/** Fields of our requests, by what they are called there. */
const PARAMS: ReadonlyMap<string, string> = new Map([
  ["session_id", "x-parley-session-id"],
  ["use_case", "x-parley-use-case"],
  ["idempotency_key", "idempotency-key"],
  ["message", "messages"],
  ["user_id", "user"],
  ["agent_team", "model"],
]);

/** Clients that obey `x-should-retry` wait this long themselves at most, in milliseconds; the official ones do. */
const LONGEST_RETRY_MS = 60_000;

/** What a caller gets for a failure. */
export function openAiError(failure: Failure): OpenAiError {
  const { reason, facts } = failure;
  const { code, message } = errorTable[reason];
  const status = codeToHttpStatus(code);
  const form: ErrorForm = OPENAI_FORMS[reason] ?? {
    status,
    type: status >= 500 ? "server_error" : "invalid_request_error",
    code: reason.toLowerCase(),
  };
  const fields = (facts.fields ?? []).map(({ field, description }) => ({
    param: PARAMS.get(field) ?? field,
    description,
  }));
  const details = [
    ...fields.map(({ param, description }) => `${param || "The body"} ${description}`),
    ...(facts.quotas ?? []).map(({ description }) => `${description}.`),
  ];
  const error = {
    // The sentence of a wrong field speaks of a detail that there is none of here.
    message: fields.length > 0 ? `${details.join("; ")}.` : [form.message ?? message, ...details].join(" "),
    type: form.type,
    param: fields[0]?.param || null,
    code: failure instanceof OpenAiRefusal ? failure.code : form.code,
  };
  return { status: form.status, header: retryHeader(failure), body: { error } };
}

/** When to try again; the official clients retry some statuses by themselves unless they are told. */
function retryHeader(failure: Failure): Headers {
  const retryMs = retryMsOf(failure);
  const header = new Headers({ "x-should-retry": String(retryMs !== undefined && retryMs <= LONGEST_RETRY_MS) });
  if (retryMs === undefined) return header;
  header.set("retry-after", String(Math.ceil(retryMs / 1_000)));
  header.set("retry-after-ms", String(Math.ceil(retryMs)));
  return header;
}
