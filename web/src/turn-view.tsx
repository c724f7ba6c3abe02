import { ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { Approvals } from "./approvals.tsx";
import { ArrowIcon, ShieldIcon } from "./icons.tsx";
import { memo } from "./memo.ts";
import { MessageText } from "./message-text.tsx";
import { ProblemNote } from "./problem-note.tsx";
import type { Approval } from "./sent-turn.ts";
import {
  costText,
  disconnectedSentence,
  durationText,
  endSentence,
  guardrailSentence,
  queueSentence,
  terminationSentence,
  tokensText,
  usageDetail,
} from "./sentences.ts";
import { ToolCall } from "./tool-call.tsx";
import { type AgentSpending, type TurnState, type TurnStep, textOf } from "./turn-state.ts";

interface TurnViewProps {
  readonly turn: TurnState;
  /** Its team has several agents: it is shown who speaks. */
  readonly several: boolean;
  /** Its team waits for a person's answer. */
  readonly waiting: boolean;
  readonly onApprove: (approvals: readonly Approval[]) => void;
  readonly onTakeBack: (key: string) => void;
  readonly onRetry: (key: string) => void;
}

/** What was asked, what came of it, and what it took. */
export const TurnView = memo(({ turn, several, waiting, onApprove, onTakeBack, onRetry }: TurnViewProps) => {
  const agents = new Set(turn.steps.flatMap((step) => (step.kind === "reply" ? [step.agent] : [])));
  const named = several || agents.size > 1;
  const end = endOf(turn, { named, waiting });
  const asked = turn.steps.filter((step) => step.kind === "approval");
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
          asks={waiting && isQuestion(turn.steps, at)}
          still={turn.phase === "ended" || turn.disconnected}
        />
      ))}
      {asked.length > 0 && <Approvals asked={asked} onAnswer={waiting ? onApprove : undefined} />}
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

/** How the turn ended, where that is not shown already. */
function endOf(turn: TurnState, { named, waiting }: { named: boolean; waiting: boolean }): string {
  const { finishReason, problem, steps, termination } = turn;
  if (problem !== undefined) return "";
  switch (finishReason) {
    case FinishReason.INPUT_REQUIRED:
      return waiting && !steps.some((step) => step.kind === "approval") ? endSentence(finishReason) : "";
    case FinishReason.GUARDRAIL:
      return steps.some((step) => step.kind === "guardrail") ? "" : endSentence(finishReason);
    case FinishReason.TERMINATED:
      return named ? terminationSentence(termination) : "";
    default:
      return endSentence(finishReason);
  }
}

/** The step's agent has not been named right before: at its last words, or for a tool call at whatever it did last. */
function isNewSpeaker(steps: readonly TurnStep[], at: number): boolean {
  const step = steps[at];
  if (step?.kind !== "reply" && step?.kind !== "tool") return false;
  const before = steps
    .slice(0, at)
    .findLast(({ kind }) => kind === "reply" || (kind === "tool" && step.kind === "tool"));
  return (before?.kind !== "reply" && before?.kind !== "tool") || before.agent !== step.agent;
}

/** The words of this step are what the user is asked. */
function isQuestion(steps: readonly TurnStep[], at: number): boolean {
  const step = steps[at];
  const isLast = steps.findLastIndex(({ kind }) => kind === "reply") === at;
  return (
    step?.kind === "reply" && isLast && steps.some((each) => each.kind === "question" && each.prompt === textOf(step))
  );
}

/** Nothing is being written, and something is to come. */
function isThinking({ phase, disconnected, agentAtWork, steps }: TurnState): boolean {
  if (disconnected || (phase !== "sending" && phase !== "answering")) return false;
  const last = steps.at(-1);
  if (last?.kind === "tool") return last.outcome !== ToolOutcome.UNSPECIFIED;
  return agentAtWork !== "" || !steps.some((step) => step.kind === "reply");
}

function Step({ step, named, asks, still }: { step: TurnStep; named: boolean; asks: boolean; still: boolean }) {
  switch (step.kind) {
    case "note":
      return (
        <p class="note">
          <ArrowIcon />
          <span>{step.text}</span>
        </p>
      );
    case "tool":
      return <ToolCall step={step} named={named} />;
    case "guardrail":
      return (
        <p class="guardrail">
          <ShieldIcon />
          <span>{guardrailSentence(step.guardrail, step.stage)}</span>
        </p>
      );
    // Calls that wait for approval stand together; a question is a reply as well.
    case "approval":
    case "question":
      return null;
    case "reply":
      return (
        <div
          class={["reply", step.completed || still ? "" : "reply-open", asks ? "reply-asks" : ""]
            .filter(Boolean)
            .join(" ")}
        >
          <span class={named ? "agent" : "visually-hidden"}>
            {step.agent}
            <span class="visually-hidden">: </span>
          </span>
          <MessageText text={textOf(step)} />
        </div>
      );
  }
}

function Facts({ turn: { phase, usage, elapsedMs, spending } }: { turn: TurnState }) {
  if (phase !== "ended") return null;
  const facts = [
    usage === undefined || usage.totalTokens === 0 ? "" : `${tokensText(usage.totalTokens)} (${usageDetail(usage)})`,
    usage === undefined ? "" : costText(usage.costMicroUsd),
    elapsedMs === undefined ? "" : durationText(elapsedMs),
  ].filter((fact) => fact !== "");
  if (facts.length === 0) return null;
  if (spending.length < 2) return <p class="facts">{facts.join(" · ")}</p>;
  return (
    // What it opens is in sight, at the end of the transcript too.
    <details class="facts" onToggle={(event) => event.currentTarget.scrollIntoView({ block: "nearest" })}>
      <summary>{facts.join(" · ")}</summary>
      <SpendingTable spending={spending} />
    </details>
  );
}

/** What each agent has used: the lines add up to the turn. */
function SpendingTable({ spending }: { spending: readonly AgentSpending[] }) {
  return (
    <table class="spending">
      <thead>
        <tr>
          <th scope="col">Agent</th>
          <th scope="col">Calls</th>
          <th scope="col">Tokens</th>
          <th scope="col">Cost</th>
        </tr>
      </thead>
      <tbody>
        {spending.map(({ agent, calls, totalTokens, costMicroUsd }) => (
          <tr key={agent}>
            <th scope="row">{agent}</th>
            <td>{calls}</td>
            <td>{totalTokens.toLocaleString("en")}</td>
            <td>{costText(costMicroUsd) || "$0"}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
