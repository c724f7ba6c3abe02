import type { TurnEvent } from "../../client/client.ts";
import { type Message, Role } from "../../gen/parley/chat/v1/message_pb.js";
import { GuardrailStage, ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { Problem } from "./problem.ts";

/** A turn as the transcript shows it, live or read from the history. */
export interface TurnState {
  /** Stable for the life of the page. */
  readonly key: string;
  /** Empty until the service names it. */
  readonly turnId: string;
  readonly question: string;
  /** The team that answers; empty until the service names it. */
  readonly agentTeam: string;
  readonly phase: TurnPhase;
  /** While queued: turns to end before this one begins. */
  readonly turnsAhead: number;
  readonly steps: readonly TurnStep[];
  /** The agent that works on its next words; empty: none, or they have begun. */
  readonly agentAtWork: string;
  /** The service cannot be heard for now. */
  readonly disconnected: boolean;
  /** It was asked to end. */
  readonly stopping: boolean;
  /** Absent where it is not known. */
  readonly usage?: TurnUsage;
  /** What was used for each agent, in the order of their first calls; the manager of a selector team is one of them. */
  readonly spending: readonly AgentSpending[];
  /** From sending to the end, as this page saw it, in milliseconds. */
  readonly elapsedMs?: number;
  readonly finishReason: FinishReason;
  /** The condition of the team that was met, as AutoGen names it; empty: none. */
  readonly termination: string;
  /** Why there is no answer, or not a whole one. */
  readonly problem?: Problem;
  /** With a problem: nothing was heard for too long, and the turn may be there still. */
  readonly mayRetry: boolean;
}

export type TurnPhase = "sending" | "queued" | "answering" | "ended";

export interface TurnUsage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly totalTokens: number;
  readonly costMicroUsd: bigint;
}

export interface AgentSpending extends TurnUsage {
  readonly agent: string;
  /** Model calls, failed ones included. */
  readonly calls: number;
}

export type TurnStep = ReplyStep | ToolStep | NoteStep | ApprovalStep | QuestionStep | GuardrailStep;

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
  readonly agent: string;
  readonly toolCallId: string;
  readonly tool: string;
  /** As the model wrote them; a JSON object. */
  readonly argumentsJson: string;
  readonly outcome: ToolOutcome;
  /** What the model is told; empty until the call has ended. */
  readonly result: string;
}

/** Something else that happened, as a sentence. */
export interface NoteStep {
  readonly kind: "note";
  readonly text: string;
}

/** A tool call that a person is asked about. */
export interface ApprovalStep {
  readonly kind: "approval";
  readonly agent: string;
  readonly toolCallId: string;
  readonly tool: string;
  /** As the model wrote them; a JSON object. */
  readonly argumentsJson: string;
}

/** What an agent asks the user. */
export interface QuestionStep {
  readonly kind: "question";
  readonly agent: string;
  readonly prompt: string;
}

/** A check of the team that failed. */
export interface GuardrailStep {
  readonly kind: "guardrail";
  readonly guardrail: string;
  readonly stage: GuardrailStage;
}

export function textOf(reply: ReplyStep): string {
  return reply.pieces.map((piece) => piece.text).join("");
}

export function newTurn({ key, question }: { key: string; question: string }): TurnState {
  return {
    key,
    turnId: "",
    question,
    agentTeam: "",
    phase: "sending",
    turnsAhead: 0,
    steps: [],
    agentAtWork: "",
    disconnected: false,
    stopping: false,
    spending: [],
    finishReason: FinishReason.UNSPECIFIED,
    termination: "",
    mayRetry: false,
  };
}

/** The turn after one more event. Events that this page does not know change nothing. */
export function afterEvent(turn: TurnState, { sequence, event }: TurnEvent): TurnState {
  const plus = (step: TurnStep): TurnState => ({ ...turn, agentAtWork: "", steps: [...turn.steps, step] });
  switch (event.case) {
    case "turnQueued":
      return { ...turn, phase: "queued", turnsAhead: event.value.position };
    case "turnStarted": {
      const { turnId, agentTeam } = event.value;
      return { ...turn, phase: "answering", turnsAhead: 0, turnId, agentTeam };
    }
    case "agentStarted":
      return { ...turn, agentAtWork: event.value.agent };
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
      return open === -1 ? plus(whole) : { ...turn, agentAtWork: "", steps: turn.steps.with(open, whole) };
    }
    case "stepRestarted":
      return { ...turn, steps: withoutTextAfter(turn.steps, event.value.discardTextAfterSequence) };
    case "toolCallStarted": {
      const { agent, toolCallId, tool, argumentsJson } = event.value;
      const outcome = ToolOutcome.UNSPECIFIED;
      return plus({ kind: "tool", agent, toolCallId, tool, argumentsJson, outcome, result: "" });
    }
    case "toolCallCompleted": {
      const { agent, toolCallId, tool, outcome, content: result } = event.value;
      const at = turn.steps.findIndex((step) => step.kind === "tool" && step.toolCallId === toolCallId);
      const started = turn.steps[at];
      const argumentsJson = started?.kind === "tool" ? started.argumentsJson : "";
      const ended: ToolStep = { kind: "tool", agent, toolCallId, tool, argumentsJson, outcome, result };
      return at === -1 ? plus(ended) : { ...turn, steps: turn.steps.with(at, ended) };
    }
    case "handoff":
      return plus({ kind: "note", text: `${event.value.fromAgent} hands over to ${event.value.toAgent}.` });
    case "agentStopped":
      return plus({ kind: "note", text: `${event.value.agent} has used up its tokens.` });
    case "speakerSelected":
      return plus({ kind: "note", text: `${event.value.agent} speaks next.` });
    case "approvalRequired": {
      const { agent, toolCallId, tool, argumentsJson } = event.value;
      return plus({ kind: "approval", agent, toolCallId, tool, argumentsJson });
    }
    case "inputRequired": {
      const { agent, prompt } = event.value;
      return plus({ kind: "question", agent, prompt });
    }
    case "guardrailTripped": {
      const { guardrail, stage } = event.value;
      return plus({ kind: "guardrail", guardrail, stage });
    }
    case "usageRecorded": {
      const { agent, tokenUsage, costMicroUsd } = event.value;
      const used = { ...countsOf(tokenUsage), costMicroUsd };
      return { ...turn, usage: sumOf(turn.usage, used), spending: withCall(turn.spending, agent, used) };
    }
    case "turnCompleted": {
      const { tokenUsage, costMicroUsd, finishReason, termination } = event.value;
      return { ...turn, finishReason, termination, usage: { ...countsOf(tokenUsage), costMicroUsd } };
    }
    default:
      return turn;
  }
}

/** The numbers of a token_usage that may be absent. */
function countsOf(usage: Omit<TurnUsage, "costMicroUsd"> | undefined): Omit<TurnUsage, "costMicroUsd"> {
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

/** The agents' spending with one more call. */
function withCall(spending: readonly AgentSpending[], agent: string, used: TurnUsage): AgentSpending[] {
  const before = spending.find((each) => each.agent === agent);
  if (before === undefined) return [...spending, { agent, calls: 1, ...used }];
  const after = { agent, calls: before.calls + 1, ...sumOf(before, used) };
  return spending.map((each) => (each === before ? after : each));
}

/** What a turn asks of a person, as long as it is not answered. */
export function questionsOf({ phase, finishReason, steps }: TurnState): {
  readonly approvals: readonly ApprovalStep[];
  readonly question: QuestionStep | undefined;
} {
  const asks = phase === "ended" && finishReason === FinishReason.INPUT_REQUIRED;
  return {
    approvals: asks ? steps.filter((step) => step.kind === "approval") : [],
    question: asks ? steps.findLast((step) => step.kind === "question") : undefined,
  };
}

/** Whether a check of the user's message ended the turn: nothing of it stays in the history. */
export function isRefusedMessage({ steps }: TurnState): boolean {
  return steps.some((step) => step.kind === "guardrail" && step.stage === GuardrailStage.INPUT);
}

/** A person's approvals as the service writes them into the history. */
export function approvalsText(approvals: readonly { readonly approved: boolean; readonly comment: string }[]): string {
  return approvals
    .map(({ approved, comment }) => (approved ? "Approved." : `Not approved.${comment === "" ? "" : ` ${comment}`}`))
    .join("\n");
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
