import { Code, ConnectError } from "@connectrpc/connect";
import { reasonOf } from "../../client/client.ts";
import { BadRequestSchema, QuotaFailureSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { problemSentences } from "./problem-sentences.ts";

/** An error as people read it. */
export interface Problem {
  /** What went wrong, a sentence; empty where the advice says it all. */
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
  const reason = reasonOf(error);
  const fields = error.findDetails(BadRequestSchema).flatMap((detail) => detail.fieldViolations);
  const quotas = error.findDetails(QuotaFailureSchema).flatMap((detail) => detail.violations);
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  // An answer without a reason is not of the service but of something before it, such as a proxy.
  if (reason === "") return { sentence: fallbackSentence(error.code), advice: ["Try again in a moment."], reason };
  const advice = [
    // What cannot be read has a rule but no field.
    ...fields
      .filter(({ field }) => field !== "")
      .map(({ field, description }) => asSentence(`${fieldNames[field] ?? `The field ${field}`} ${description}`)),
    ...quotas.map(({ description }) => asSentence(description)),
    ...(delay === undefined ? [] : [`Try again in ${waitText(Number(delay.seconds) + delay.nanos / 1e9)}.`]),
  ].filter((text) => text !== "");
  return { sentence: problemSentences[reason] ?? asSentence(error.rawMessage), advice, reason };
}

/** The session is not there any more: nothing that is said in it can be answered. */
export function isSessionGone({ reason }: Problem): boolean {
  return reason === "SESSION_NOT_FOUND" || reason === "SESSION_DELETED";
}

const fieldNames: Readonly<Record<string, string>> = {
  message: "The message",
  user_id: "The user id",
  session_id: "The session id",
  page_token: "The page token",
  agent_team: "The team",
};

function fallbackSentence(code: Code): string {
  return code === Code.Unavailable ? "The service is not available." : "The answer did not come through whole.";
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
