import { ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { memo } from "./memo.ts";
import { MessageText } from "./message-text.tsx";
import { ProblemNote } from "./problem-note.tsx";
import {
  costText,
  disconnectedSentence,
  durationText,
  endSentence,
  queueSentence,
  tokensText,
  usageDetail,
} from "./sentences.ts";
import { ToolCall } from "./tool-call.tsx";
import { type TurnState, type TurnStep, textOf } from "./turn-state.ts";

interface TurnViewProps {
  readonly turn: TurnState;
  /** Its team has several agents: it is shown who speaks. */
  readonly several: boolean;
  readonly onTakeBack: (key: string) => void;
  readonly onRetry: (key: string) => void;
}

/** What was asked, what came of it, and what it took. */
export const TurnView = memo(({ turn, several, onTakeBack, onRetry }: TurnViewProps) => {
  const agents = new Set(turn.steps.flatMap((step) => (step.kind === "reply" ? [step.agent] : [])));
  const named = several || agents.size > 1;
  const end = turn.problem === undefined ? endSentence(turn.finishReason) : "";
  return (
    <article class={classOf(turn)}>
      {turn.question !== "" && (
        <div class="question">
          <span class="visually-hidden">You: </span>
          <MessageText text={turn.question} />
        </div>
      )}
      {turn.steps.map((step, at) => (
        <Step
          key={at}
          step={step}
          named={named && isNewSpeaker(turn.steps, at)}
          still={turn.phase === "ended" || turn.disconnected}
        />
      ))}
      {turn.disconnected && <p class="disconnected">{disconnectedSentence(turn.phase)}</p>}
      {turn.phase === "queued" && !turn.disconnected && (
        <div class="waiting queued">
          <span>{queueSentence(turn.turnsAhead)}</span>
          <button type="button" class="text-button" onClick={() => onTakeBack(turn.key)}>
            Take back
          </button>
        </div>
      )}
      {isThinking(turn) && (
        <p class="waiting" aria-hidden="true">
          {named && turn.agentAtWork !== "" && <span class="agent">{turn.agentAtWork}</span>}
          <span class="dots" />
        </p>
      )}
      {turn.problem !== undefined && <ProblemNote problem={turn.problem} />}
      {turn.mayRetry && (
        <button type="button" class="quiet-button retry-button" onClick={() => onRetry(turn.key)}>
          Try again
        </button>
      )}
      {end !== "" && <p class="end">{end}</p>}
      <Facts turn={turn} />
    </article>
  );
});

function classOf({ problem, phase }: TurnState): string {
  if (problem !== undefined) return "turn turn-failed";
  return phase === "queued" ? "turn turn-waiting" : "turn";
}

/** The step's agent has not been named right before: at its last words, or for a tool call at whatever it did last. */
function isNewSpeaker(steps: readonly TurnStep[], at: number): boolean {
  const step = steps[at];
  if (step === undefined || step.kind === "note") return false;
  const before = steps
    .slice(0, at)
    .findLast(({ kind }) => kind === "reply" || (kind === "tool" && step.kind === "tool"));
  return before === undefined || before.kind === "note" || before.agent !== step.agent;
}

/** Nothing is being written, and something is to come. */
function isThinking({ phase, disconnected, agentAtWork, steps }: TurnState): boolean {
  if (disconnected || (phase !== "sending" && phase !== "answering")) return false;
  const last = steps.at(-1);
  if (last?.kind === "tool") return last.outcome !== ToolOutcome.UNSPECIFIED;
  return agentAtWork !== "" || !steps.some((step) => step.kind === "reply");
}

function Step({ step, named, still }: { step: TurnStep; named: boolean; still: boolean }) {
  if (step.kind === "note") return <p class="note">{step.text}</p>;
  if (step.kind === "tool") return <ToolCall step={step} named={named} />;
  return (
    <div class={step.completed || still ? "reply" : "reply reply-open"}>
      <span class={named ? "agent" : "visually-hidden"}>
        {step.agent}
        <span class="visually-hidden">: </span>
      </span>
      <MessageText text={textOf(step)} />
    </div>
  );
}

function Facts({ turn: { phase, usage, elapsedMs } }: { turn: TurnState }) {
  if (phase !== "ended") return null;
  const facts = [
    usage === undefined || usage.totalTokens === 0 ? "" : `${tokensText(usage.totalTokens)} (${usageDetail(usage)})`,
    usage === undefined ? "" : costText(usage.costMicroUsd),
    elapsedMs === undefined ? "" : durationText(elapsedMs),
  ].filter((fact) => fact !== "");
  return facts.length === 0 ? null : <p class="facts">{facts.join(" · ")}</p>;
}
