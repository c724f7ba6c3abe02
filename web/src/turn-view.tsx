import { memo } from "./memo.ts";
import { MessageText } from "./message-text.tsx";
import { ProblemNote } from "./problem-note.tsx";
import {
  costText,
  durationText,
  endSentence,
  queueSentence,
  tokensText,
  toolSentence,
  usageDetail,
} from "./sentences.ts";
import { type TurnState, type TurnStep, textOf } from "./turn-state.ts";

/** What was asked, what came of it, and what it took. */
export const TurnView = memo(({ turn }: { turn: TurnState }) => {
  const agents = new Set(turn.steps.flatMap((step) => (step.kind === "reply" ? [step.agent] : [])));
  const silent = !turn.steps.some((step) => step.kind === "reply");
  const end = turn.problem === undefined ? endSentence(turn.finishReason) : "";
  return (
    <article class={turn.problem === undefined ? "turn" : "turn turn-failed"}>
      {turn.question !== "" && (
        <div class="question">
          <span class="visually-hidden">You: </span>
          <MessageText text={turn.question} />
        </div>
      )}
      {turn.steps.map((step, at) => (
        <Step key={at} step={step} named={agents.size > 1} />
      ))}
      {turn.phase === "queued" && <p class="waiting">{queueSentence(turn.turnsAhead)}</p>}
      {(turn.phase === "sending" || turn.phase === "answering") && silent && (
        <p class="waiting" aria-hidden="true">
          <span class="dots" />
        </p>
      )}
      {turn.problem !== undefined && <ProblemNote problem={turn.problem} />}
      {end !== "" && <p class="end">{end}</p>}
      <Facts turn={turn} />
    </article>
  );
});

function Step({ step, named }: { step: TurnStep; named: boolean }) {
  if (step.kind === "note") return <p class="note">{step.text}</p>;
  if (step.kind === "tool") return <p class="note">{toolSentence(step.tool, step.outcome)}</p>;
  return (
    <div class={step.completed ? "reply" : "reply reply-open"}>
      <span class={named ? "agent" : "visually-hidden"}>{step.agent}: </span>
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
