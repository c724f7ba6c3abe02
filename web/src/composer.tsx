import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { useCell } from "./cell.ts";
import type { Conversation } from "./conversation.ts";
import { SendIcon, StopIcon } from "./icons.tsx";
import { questionsOf, type TurnState } from "./turn-state.ts";

/** The service's bound on a message, in code points; it is the service that enforces it. */
const MESSAGE_CODE_POINTS = 10_000;
/** From here on the length is shown. */
const COUNT_FROM = 9_000;

interface ComposerProps {
  readonly conversation: Conversation;
  /** A turn has not ended: what is sent now waits for it, or interrupts it. */
  readonly running: boolean;
  /** That turn was asked to end. */
  readonly stopping: boolean;
  /** The turn whose team waits for an answer: what is written is that. */
  readonly waiting: TurnState | undefined;
  readonly teams: readonly string[];
  /** Names of each team's agents, by the team's name. */
  readonly agents: Readonly<Record<string, readonly string[]>>;
}

export function Composer({ conversation, running, stopping, waiting, teams, agents }: ComposerProps) {
  const draft = useCell(conversation.draft);
  const [agentTeam, setAgentTeam] = useState("");
  const field = useRef<HTMLTextAreaElement>(null);
  const length = draft.length < COUNT_FROM ? draft.length : [...draft].length;
  const blank = draft.trim() === "";

  useEffect(() => field.current?.focus(), [conversation]);
  useEffect(() => {
    // To another team it would be no answer, and make the question void.
    if (waiting !== undefined) setAgentTeam(waiting.agentTeam);
  }, [waiting]);
  useLayoutEffect(() => {
    // Grows with its text, up to the maximum in styles.css.
    if (field.current === null) return;
    field.current.style.height = "auto";
    field.current.style.height = `${field.current.scrollHeight}px`;
  }, [draft]);

  useEffect(() => {
    // The button that had the focus may have gone with the turn's end.
    if (!running && document.activeElement === document.body) field.current?.focus();
  }, [running]);

  const send = ({ interrupts }: { interrupts: boolean }): void => {
    // Of what is written now: it may be newer than what is shown.
    const message = conversation.draft.get();
    if (message.trim() === "") return;
    conversation.send(message, { agentTeam, interrupts });
    field.current?.focus();
  };
  const stop = (): void => {
    conversation.stop();
    field.current?.focus();
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send({ interrupts: false });
      }}
    >
      <label class="visually-hidden" for="message">
        Message
      </label>
      <textarea
        ref={field}
        id="message"
        rows={1}
        value={draft}
        placeholder={placeholderOf(waiting)}
        aria-describedby="message-keys"
        onInput={(event) => conversation.draft.set(event.currentTarget.value)}
        onKeyDown={(event) => {
          // Enter that ends an input method's composition is no send.
          if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
          event.preventDefault();
          send({ interrupts: running && (event.ctrlKey || event.metaKey) });
        }}
      />
      <div class="composer-bar">
        {teams.length > 1 && (
          <select
            aria-label="Team that answers"
            value={agentTeam}
            onChange={(event) => setAgentTeam(event.currentTarget.value)}
          >
            <option value="">Default team</option>
            {teams.map((team) => (
              <option key={team} value={team}>
                {labelOf(team, agents[team])}
              </option>
            ))}
          </select>
        )}
        <p id="message-keys" class="hint keys">
          {keysHint({ running, stopping, blank })}
        </p>
        {length >= COUNT_FROM && (
          <p class={length > MESSAGE_CODE_POINTS ? "hint count over" : "hint count"}>
            {length.toLocaleString("en")} / {MESSAGE_CODE_POINTS.toLocaleString("en")}
          </p>
        )}
        <div class="composer-actions">
          {running && !blank && (
            <button
              type="button"
              class="quiet-button interrupt-button"
              title="The running answer ends, and what it said is kept."
              onClick={() => send({ interrupts: true })}
            >
              Interrupt
            </button>
          )}
          {running && (
            <button
              key="stop"
              type="button"
              class="round-button stop-button"
              aria-label="Stop"
              aria-disabled={stopping}
              onClick={stop}
            >
              <StopIcon />
            </button>
          )}
          {(!running || !blank) && (
            <button
              key="send"
              type="submit"
              class="round-button"
              aria-label={running ? "Send when the answer has ended" : "Send"}
              disabled={blank}
            >
              <SendIcon />
            </button>
          )}
        </div>
      </div>
    </form>
  );
}

function placeholderOf(waiting: TurnState | undefined): string {
  if (waiting === undefined) return "Message";
  const { approvals, question } = questionsOf(waiting);
  return approvals.length > 0 ? "A message refuses the call" : `Your answer to ${question?.agent}`;
}

/** Who is in a team of several. */
function labelOf(team: string, agents: readonly string[] = []): string {
  return agents.length > 1 ? `${team}: ${agents.join(", ")}` : team;
}

function keysHint({ running, stopping, blank }: { running: boolean; stopping: boolean; blank: boolean }): string {
  if (stopping) return "Stopping …";
  if (!running) return "Enter sends, Shift+Enter starts a new line";
  return blank ? "Esc stops" : "Enter queues, Ctrl+Enter interrupts, Esc stops";
}
