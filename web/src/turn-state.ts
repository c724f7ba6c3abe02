import type { StreamChatResponse } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { type Message, Role } from "../../gen/parley/chat/v1/message_pb.js";
import { ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { Problem } from "./problem.ts";

/** A turn as the transcript shows it, live or read from the history. */
export interface TurnState {
  /** Stable for the life of the page. */
  readonly key: string;
  /** Empty until the service names it. */
  readonly turnId: string;
  readonly question: string;
  readonly phase: TurnPhase;
  /** While queued: turns to end before this one begins. */
  readonly turnsAhead: number;
  readonly steps: readonly TurnStep[];
  /** Absent where it is not known. */
  readonly usage?: TurnUsage;
  /** From sending to the end, as this page saw it, in milliseconds. */
  readonly elapsedMs?: number;
  readonly finishReason: FinishReason;
  /** Why there is no answer, or not a whole one. */
  readonly problem?: Problem;
}

export type TurnPhase = "sending" | "queued" | "answering" | "ended";

export interface TurnUsage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly totalTokens: number;
  readonly costMicroUsd: bigint;
}

export type TurnStep = ReplyStep | ToolStep | NoteStep;

/** What an agent says. */
export interface ReplyStep {
  readonly kind: "reply";
  readonly agent: string;
  /** Text with the sequence of the event that brought it, so that a restarted step can take it back. */
  readonly pieces: readonly { readonly sequence: bigint; readonly text: string }[];
  /** No more text comes. */
  readonly completed: boolean;
}

export interface ToolStep {
  readonly kind: "tool";
  readonly toolCallId: string;
  readonly tool: string;
  readonly outcome: ToolOutcome;
}

/** Something else that happened, as a sentence. */
export interface NoteStep {
  readonly kind: "note";
  readonly text: string;
}

export function textOf(reply: ReplyStep): string {
  return reply.pieces.map((piece) => piece.text).join("");
}

export function newTurn({ key, question }: { key: string; question: string }): TurnState {
  return {
    key,
    turnId: "",
    question,
    phase: "sending",
    turnsAhead: 0,
    steps: [],
    finishReason: FinishReason.UNSPECIFIED,
  };
}

/** The turn after one more event. Events that this page does not know change nothing. */
export function afterEvent(turn: TurnState, { sequence, event }: StreamChatResponse): TurnState {
  const plus = (step: TurnStep): TurnState => ({ ...turn, steps: [...turn.steps, step] });
  switch (event.case) {
    case "turnQueued":
      return { ...turn, phase: "queued", turnsAhead: event.value.position };
    case "turnStarted":
      return { ...turn, phase: "answering", turnsAhead: 0, turnId: event.value.turnId };
    case "textDelta": {
      const piece = { sequence, text: event.value.text };
      const last = turn.steps.at(-1);
      if (last?.kind !== "reply" || last.completed || last.agent !== event.value.agent) {
        return plus({ kind: "reply", agent: event.value.agent, pieces: [piece], completed: false });
      }
      return { ...turn, steps: [...turn.steps.slice(0, -1), { ...last, pieces: [...last.pieces, piece] }] };
    }
    case "messageCompleted": {
      const { agent, content } = event.value;
      const whole: ReplyStep = { kind: "reply", agent, pieces: [{ sequence, text: content }], completed: true };
      const open = turn.steps.findLastIndex((step) => step.kind === "reply" && !step.completed && step.agent === agent);
      return open === -1 ? plus(whole) : { ...turn, steps: turn.steps.with(open, whole) };
    }
    case "stepRestarted":
      return { ...turn, steps: withoutTextAfter(turn.steps, event.value.discardTextAfterSequence) };
    case "toolCallStarted": {
      const { toolCallId, tool } = event.value;
      return plus({ kind: "tool", toolCallId, tool, outcome: ToolOutcome.UNSPECIFIED });
    }
    case "toolCallCompleted": {
      const { toolCallId, tool, outcome } = event.value;
      const started = turn.steps.findIndex((step) => step.kind === "tool" && step.toolCallId === toolCallId);
      const ended: ToolStep = { kind: "tool", toolCallId, tool, outcome };
      return started === -1 ? plus(ended) : { ...turn, steps: turn.steps.with(started, ended) };
    }
    case "handoff":
      return plus({ kind: "note", text: `${event.value.fromAgent} hands over to ${event.value.toAgent}.` });
    case "speakerSelected":
      return plus({ kind: "note", text: `${event.value.agent} speaks next.` });
    case "approvalRequired":
      return plus({ kind: "note", text: `${event.value.agent} waits for approval to call ${event.value.tool}.` });
    case "inputRequired":
      return plus({ kind: "note", text: `${event.value.agent} asks: ${event.value.prompt}` });
    case "guardrailTripped":
      return plus({ kind: "note", text: `The guardrail ${event.value.guardrail} stopped the turn.` });
    case "usageRecorded": {
      const { tokenUsage, costMicroUsd } = event.value;
      return { ...turn, usage: sumOf(turn.usage, { ...countsOf(tokenUsage), costMicroUsd }) };
    }
    case "turnCompleted": {
      const { tokenUsage, costMicroUsd, finishReason } = event.value;
      return { ...turn, finishReason, usage: { ...countsOf(tokenUsage), costMicroUsd } };
    }
    default:
      return turn;
  }
}

/** The numbers of a token_usage that may be absent. */
export function countsOf(usage: Omit<TurnUsage, "costMicroUsd"> | undefined): Omit<TurnUsage, "costMicroUsd"> {
  const { promptTokens = 0, completionTokens = 0, totalTokens = 0 } = usage ?? {};
  return { promptTokens, completionTokens, totalTokens };
}

function sumOf(sum: TurnUsage | undefined, more: TurnUsage): TurnUsage {
  if (sum === undefined) return more;
  return {
    promptTokens: sum.promptTokens + more.promptTokens,
    completionTokens: sum.completionTokens + more.completionTokens,
    totalTokens: sum.totalTokens + more.totalTokens,
    costMicroUsd: sum.costMicroUsd + more.costMicroUsd,
  };
}

/** Text after the sequence is void; completed messages stand. */
function withoutTextAfter(steps: readonly TurnStep[], sequence: bigint): TurnStep[] {
  return steps.flatMap((step): TurnStep[] => {
    if (step.kind !== "reply" || step.completed) return [step];
    const pieces = step.pieces.filter((piece) => piece.sequence <= sequence);
    return pieces.length === 0 ? [] : [{ ...step, pieces }];
  });
}

/** The turns that a history consists of, in its order. */
export function turnsOfHistory(messages: readonly Message[]): TurnState[] {
  const turns = new Map<string, TurnState>();
  for (const { turnId, role, agent, content } of messages) {
    const turn = turns.get(turnId) ?? { ...newTurn({ key: turnId, question: "" }), turnId, phase: "ended" as const };
    turns.set(
      turnId,
      role === Role.USER
        ? { ...turn, question: content }
        : { ...turn, steps: [...turn.steps, stepOf(role, agent, content)] },
    );
  }
  return [...turns.values()];
}

function stepOf(role: Role, agent: string, content: string): TurnStep {
  if (role === Role.TOOL) return { kind: "note", text: `Tool result: ${content}` };
  return { kind: "reply", agent, pieces: [{ sequence: 0n, text: content }], completed: true };
}
