import type { Headroom } from "../../gen/parley/chat/v1/headroom_pb.js";
import { GuardrailStage, ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { TurnPhase, TurnUsage } from "./turn-state.ts";

/** What to say of how a turn ended; empty where it ended as one expects. */
export function endSentence(reason: FinishReason): string {
  switch (reason) {
    case FinishReason.MAX_ROUNDS:
      return "The team reached its maximum of rounds.";
    case FinishReason.TOKEN_BUDGET:
      return "The answer was cut: the turn used up its tokens.";
    case FinishReason.BUDGET_EXHAUSTED:
      return "The answer was cut: a budget is used up.";
    case FinishReason.INPUT_REQUIRED:
      return "The team waits for your answer.";
    case FinishReason.CANCELLED:
      return "Stopped.";
    case FinishReason.INTERRUPTED:
      return "A newer message ended this turn.";
    case FinishReason.ROLLED_BACK:
      return "A newer message took this turn's place.";
    case FinishReason.DEADLINE:
      return "The turn ran out of time.";
    case FinishReason.CONTENT_FILTER:
      return "The model's provider refused to go on because of the content.";
    case FinishReason.GUARDRAIL:
      return "A guardrail stopped this turn.";
    case FinishReason.ERROR:
      return "The turn failed.";
    default:
      return "";
  }
}

/** Why a team of several ended its turn, by AutoGen's names of the conditions that were met, joined by " & ". */
export function terminationSentence(termination: string): string {
  if (termination === "") return "";
  const clauses = termination.split(" & ").map((name) => terminationClauses[name] ?? `${name} was met`);
  return `The team is done: ${clauses.join(", and ")}.`;
}

const terminationClauses: Readonly<Record<string, string>> = {
  TextMentionTermination: "its closing word was said",
  MaxMessageTermination: "its maximum of messages was reached",
  TokenUsageTermination: "its maximum of tokens was reached",
  TimeoutTermination: "its time was over",
  HandoffTermination: "the hand-off that ends it was made",
  FunctionCallTermination: "the tool that ends it was called",
  SourceMatchTermination: "whoever has the last word has spoken",
};

export function guardrailSentence(guardrail: string, stage: GuardrailStage): string {
  return stage === GuardrailStage.INPUT
    ? `The guardrail ${guardrail} refused this message. No model has seen it.`
    : `The guardrail ${guardrail} stopped the answer.`;
}

export function queueSentence(turnsAhead: number): string {
  return turnsAhead === 1 ? "Waiting: 1 turn ahead" : `Waiting: ${turnsAhead} turns ahead`;
}

/** What to say while the service cannot be heard: what has begun goes on without the page. */
export function disconnectedSentence(phase: TurnPhase): string {
  return phase === "answering"
    ? "The connection was lost. The answer goes on here as soon as it is back."
    : "The service does not answer. Trying again …";
}

export function toolSentence(tool: string, outcome: ToolOutcome): string {
  switch (outcome) {
    case ToolOutcome.OK:
      return `Called ${tool}.`;
    case ToolOutcome.ERROR:
      return `${tool} failed.`;
    case ToolOutcome.REFUSED:
      return `${tool} was not allowed.`;
    case ToolOutcome.UNKNOWN:
      return `${tool} was called; how it ended is not known.`;
    default:
      return `Calling ${tool} …`;
  }
}

/** "128 tokens", or "1 token". */
export function tokensText(tokens: number): string {
  return `${tokens.toLocaleString("en")} ${tokens === 1 ? "token" : "tokens"}`;
}

export function usageDetail({ promptTokens, completionTokens }: TurnUsage): string {
  return `${promptTokens.toLocaleString("en")} in, ${completionTokens.toLocaleString("en")} out`;
}

/** "$0.0123"; empty where nothing was charged. */
export function costText(costMicroUsd: bigint): string {
  if (costMicroUsd <= 0n) return "";
  const usd = Number(costMicroUsd) / 1e6;
  return `$${usd.toFixed(usd < 0.01 ? 6 : usd < 1 ? 4 : 2)}`;
}

/** "Left of your budget: $4.98, 12,000 tokens": of several budgets what is used up first. Empty where none binds. */
export function headroomText(headroom: readonly Pick<Headroom, "leftMicroUsd" | "leftTokens">[]): string {
  const money = leastOf(headroom.map(({ leftMicroUsd }) => leftMicroUsd));
  const tokens = leastOf(headroom.map(({ leftTokens }) => leftTokens));
  const left = [
    ...(money === undefined ? [] : [costText(money) || "$0"]),
    ...(tokens === undefined ? [] : [tokensText(Number(tokens))]),
  ];
  return left.length === 0 ? "" : `Left of your budget: ${left.join(", ")}`;
}

function leastOf(amounts: readonly (bigint | undefined)[]): bigint | undefined {
  return amounts.filter((amount) => amount !== undefined).toSorted((a, b) => Number(a - b))[0];
}

/** `340 ms`, `2.5 s`, `3 min 20 s`. */
export function durationText(ms: number): string {
  // Rounded before it is compared, so that nothing reads "1000 ms" or "1 min 60 s".
  if (Math.round(ms) < 1_000) return `${Math.round(ms)} ms`;
  if (Math.round(ms / 100) < 600) return `${(Math.round(ms / 100) / 10).toFixed(1)} s`;
  const seconds = Math.round(ms / 1_000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

/** How long ago, roughly, at a time in milliseconds. */
export function agoText(thenMs: number, nowMs: number): string {
  const minutes = Math.max(0, Math.floor((nowMs - thenMs) / 60_000));
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min ago`;
  return minutes < 48 * 60 ? `${Math.floor(minutes / 60)} h ago` : `${Math.floor(minutes / (24 * 60))} days ago`;
}
