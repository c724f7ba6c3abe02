import { Code, ConnectError } from "@connectrpc/connect";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  QuotaFailureSchema,
  RetryInfoSchema,
} from "../../gen/google/rpc/error_details_pb.js";

/** An error as people read it. */
export interface Problem {
  /** What went wrong, a sentence. */
  readonly sentence: string;
  /** Further sentences: what to mend, when to try again. */
  readonly advice: readonly string[];
  /** The reason in the service's table of errors, for whoever reports it; empty where the service gave none. */
  readonly reason: string;
}

/** Makes a problem of whatever an RPC rejected with. */
export function problemOf(thrown: unknown): Problem {
  const error = ConnectError.from(thrown);
  if (thrown instanceof TypeError || error.cause instanceof TypeError) {
    // fetch rejects so when nothing answers or the connection breaks.
    return {
      sentence: "The service cannot be reached.",
      advice: ["Check that it is running, then try again."],
      reason: "",
    };
  }
  const reason = error.findDetails(ErrorInfoSchema)[0]?.reason ?? "";
  const fields = error.findDetails(BadRequestSchema).flatMap((detail) => detail.fieldViolations);
  const quotas = error.findDetails(QuotaFailureSchema).flatMap((detail) => detail.violations);
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const advice = [
    ...fields.map(({ field, description }) =>
      asSentence(`${fieldNames[field] ?? `The field ${field}`} ${description}`),
    ),
    ...quotas.map(({ description }) => asSentence(description)),
    ...(delay === undefined ? [] : [`Try again in ${waitText(Number(delay.seconds) + delay.nanos / 1e9)}.`]),
  ].filter((text) => text !== "");
  return { sentence: asSentence(error.rawMessage) || fallbackSentence(error.code), advice, reason };
}

const fieldNames: Readonly<Record<string, string>> = {
  message: "The message",
  user_id: "The user id",
  session_id: "The session id",
  page_token: "The page token",
  agent_team: "The team",
};

function fallbackSentence(code: Code): string {
  return code === Code.Unavailable ? "The service is not available." : "The service could not do this.";
}

/** At least one second: "in 0 s" helps nobody. */
function waitText(seconds: number): string {
  const whole = Math.max(1, Math.ceil(seconds));
  return whole < 120 ? `${whole} s` : `${Math.ceil(whole / 60)} min`;
}

function asSentence(text: string): string {
  const trimmed = text.trim();
  if (trimmed === "") return "";
  const capital = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?…]$/.test(capital) ? capital : `${capital}.`;
}
