import { useMemo } from "preact/hooks";
import type { Session } from "../../gen/parley/chat/v1/session_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { useCell } from "./cell.ts";
import { Composer } from "./composer.tsx";
import type { ConsoleConfig } from "./console-config.ts";
import { type Conversation, isActive, turnsOf, waitingTurnOf } from "./conversation.ts";
import { isSessionGone } from "./problem.ts";
import { ProblemNote } from "./problem-note.tsx";
import {
  costText,
  disconnectedSentence,
  endSentence,
  guardrailSentence,
  headroomText,
  queueSentence,
  tokensText,
} from "./sentences.ts";
import { Transcript } from "./transcript.tsx";
import { questionsOf, type TurnState, type TurnStep, textOf } from "./turn-state.ts";

interface ConversationPaneProps {
  readonly conversation: Conversation;
  /** Absent while it is not in the list. */
  readonly session: Session | undefined;
  readonly config: ConsoleConfig | undefined;
  /** Called to go on in another session, with what is written. */
  onNewSession(draft: string): void;
}

export function ConversationPane({ conversation, session, config, onNewSession }: ConversationPaneProps) {
  const state = useCell(conversation.state, { perFrame: true });
  const turns = useMemo(() => turnsOf(state), [state.history, state.live, state.newest]);
  const waiting = waitingTurnOf(turns);
  const active = state.live.find(isActive);
  const lastProblem = state.problem ?? state.live.at(-1)?.problem;
  const gone = lastProblem !== undefined && isSessionGone(lastProblem);
  const empty = turns.length === 0 && !state.loading && state.problem === undefined;
  return (
    <>
      <Transcript
        turns={turns}
        loading={state.loading}
        older={state.history.olderTokens.length > 0}
        agents={config?.agents}
        waiting={waiting}
        onApprove={conversation.approve}
        onTakeBack={conversation.takeBack}
        onRetry={conversation.retry}
        onOlder={() => void conversation.loadOlder()}
      >
        {state.problem !== undefined && <ProblemNote problem={state.problem} />}
        {state.problem !== undefined && !gone && (
          <button type="button" class="quiet-button problem-button" onClick={() => void conversation.open()}>
            Try again
          </button>
        )}
        {gone && (
          <button
            type="button"
            class="quiet-button problem-button"
            onClick={() => onNewSession(conversation.draft.get())}
          >
            Start a new session
          </button>
        )}
        {empty && <Welcome config={config} />}
      </Transcript>
      <p class="visually-hidden" role="status" aria-live="polite">
        {announcementOf(active ?? state.live.at(-1))}
      </p>
      <Composer
        conversation={conversation}
        running={active !== undefined}
        stopping={active?.stopping === true}
        waiting={waiting}
        teams={config?.teams ?? []}
        agents={config?.agents ?? {}}
      />
      <p class="session-total">
        {[session === undefined ? "" : totalText(session), headroomText(state.headroom)].filter(Boolean).join(" · ")}
      </p>
    </>
  );
}

function Welcome({ config }: { config: ConsoleConfig | undefined }) {
  return (
    <div class="welcome">
      <h2>Say something.</h2>
      {config?.simulatedModel ? (
        <p>
          Answers come from a simulated model: it repeats what it was sent, or follows an example’s script. Start the
          service with <code>OPENAI_API_KEY</code> or <code>OPENAI_BASE_URL</code> to talk to a real one.
        </p>
      ) : (
        <p>Your first message begins a session. It is kept in the list, and its answer comes as it is written.</p>
      )}
    </div>
  );
}

function totalText(session: Session): string {
  const tokens = session.tokenUsage?.totalTokens ?? 0;
  if (tokens === 0) return "";
  const cost = costText(session.costMicroUsd);
  return `This session so far: ${tokensText(tokens)}${cost === "" ? "" : `, ${cost}`}`;
}

/** What a screen reader is told: whole replies, not each piece. Errors are alerts of their own. */
function announcementOf(turn: TurnState | undefined): string {
  if (turn === undefined || turn.problem !== undefined) return "";
  if (turn.disconnected) return disconnectedSentence(turn.phase);
  if (turn.phase === "queued") return queueSentence(turn.turnsAhead);
  if (turn.phase !== "ended") return "Waiting for the answer";
  const said = turn.steps.map(spokenText).filter((text) => text !== "");
  const approvals = questionsOf(turn).approvals.map(
    ({ agent, tool }) => `${agent} asks to call ${tool}. Approve it or refuse it.`,
  );
  const told = turn.finishReason === FinishReason.GUARDRAIL || approvals.length > 0;
  return [...said, ...approvals, told ? "" : endSentence(turn.finishReason)].filter(Boolean).join(" ");
}

function spokenText(step: TurnStep): string {
  if (step.kind === "reply") return textOf(step);
  return step.kind === "guardrail" ? guardrailSentence(step.guardrail, step.stage) : "";
}
