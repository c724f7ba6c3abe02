import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { useCell } from "./cell.ts";
import type { Conversation } from "./conversation.ts";
import { SendIcon, StopIcon } from "./icons.tsx";

/** The service's bound on a message, in code points; it is the service that enforces it. */
const MESSAGE_CODE_POINTS = 10_000;
/** From here on the length is shown. */
const COUNT_FROM = 9_000;

interface ComposerProps {
  readonly conversation: Conversation;
  readonly running: boolean;
  readonly teams: readonly string[];
}

export function Composer({ conversation, running, teams }: ComposerProps) {
  const draft = useCell(conversation.draft);
  const [agentTeam, setAgentTeam] = useState("");
  const field = useRef<HTMLTextAreaElement>(null);
  const length = draft.length < COUNT_FROM ? draft.length : [...draft].length;
  const blank = draft.trim() === "";

  useEffect(() => field.current?.focus(), [conversation]);
  useLayoutEffect(() => {
    // Grows with its text, up to the maximum in styles.css.
    if (field.current === null) return;
    field.current.style.height = "auto";
    field.current.style.height = `${field.current.scrollHeight}px`;
  }, [draft]);

  const send = (): void => {
    if (blank || running) return;
    void conversation.send(draft, { agentTeam });
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
        send();
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
        placeholder="Message"
        aria-describedby="message-keys"
        onInput={(event) => conversation.draft.set(event.currentTarget.value)}
        onKeyDown={(event) => {
          // Enter that ends an input method's composition is no send.
          if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
          event.preventDefault();
          send();
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
                {team}
              </option>
            ))}
          </select>
        )}
        <p id="message-keys" class="hint keys">
          {running ? "Esc stops" : "Enter sends, Shift+Enter starts a new line"}
        </p>
        {length >= COUNT_FROM && (
          <p class={length > MESSAGE_CODE_POINTS ? "hint count over" : "hint count"}>
            {length.toLocaleString("en")} / {MESSAGE_CODE_POINTS.toLocaleString("en")}
          </p>
        )}
        {running ? (
          <button key="stop" type="button" class="round-button stop-button" aria-label="Stop" onClick={stop}>
            <StopIcon />
          </button>
        ) : (
          <button key="send" type="submit" class="round-button" aria-label="Send" disabled={blank}>
            <SendIcon />
          </button>
        )}
      </div>
    </form>
  );
}
