import { useEffect, useRef, useState } from "preact/hooks";
import { useCell } from "./cell.ts";
import { type ConsoleConfig, fetchConsoleConfig } from "./console-config.ts";
import type { ConsoleModel } from "./console-model.ts";
import { ConversationPane } from "./conversation-pane.tsx";
import { MenuIcon } from "./icons.tsx";
import { nameOf } from "./session-list.ts";
import { SessionsPane } from "./sessions-pane.tsx";

/** Below this width the sessions are a drawer; the same as in styles.css. */
const NARROW = "(max-width: 639.98px)";

export function ConsolePage({ model }: { model: ConsoleModel }) {
  const { userId, list, conversation } = useCell(model.state);
  const { sessionId } = useCell(conversation.state);
  const { sessions } = useCell(list.state);
  const [config, setConfig] = useState<ConsoleConfig>();
  const [drawerOpen, setDrawerOpen] = useState(false);
  const narrow = useMedia(NARROW);
  const menuButton = useRef<HTMLButtonElement>(null);
  const session = sessions.find((each) => each.sessionId === sessionId);
  const title = session === undefined ? "New session" : nameOf(session);

  useEffect(() => {
    void fetchConsoleConfig().then(setConfig);
  }, []);
  useEffect(() => {
    document.title = `${title} · Parley`;
  }, [title]);

  const closeDrawer = (): void => {
    if (!drawerOpen) return;
    setDrawerOpen(false);
    menuButton.current?.focus();
  };
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      if (event.key !== "Escape" || event.defaultPrevented || document.querySelector("dialog[open]") !== null) return;
      if (drawerOpen && narrow) closeDrawer();
      else conversation.stop();
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, [conversation, drawerOpen, narrow]);

  const drawer = narrow && drawerOpen;
  return (
    <div class="page">
      <button type="button" class="skip-link" onClick={focusMessage}>
        Skip to the message
      </button>
      <SessionsPane
        model={model}
        userId={userId}
        list={list}
        openSessionId={sessionId}
        hidden={narrow && !drawerOpen}
        drawer={drawer}
        config={config}
        onLeave={() => setDrawerOpen(false)}
      />
      {drawer && <button type="button" class="backdrop" aria-label="Close the sessions" onClick={closeDrawer} />}
      <main class="main" inert={drawer}>
        <header class="top">
          <button
            ref={menuButton}
            type="button"
            class="icon-button menu-button"
            aria-label="Sessions"
            aria-expanded={drawerOpen}
            aria-controls="sessions"
            onClick={() => setDrawerOpen(true)}
          >
            <MenuIcon />
          </button>
          <h1 class="title">{title}</h1>
          {config?.simulatedModel && (
            <span class="badge" title="Answers are made up from what was sent. No language model is called.">
              simulated model
            </span>
          )}
        </header>
        <ConversationPane key={conversation} conversation={conversation} session={session} config={config} />
      </main>
    </div>
  );
}

function focusMessage(): void {
  document.getElementById("message")?.focus();
}

function useMedia(query: string): boolean {
  const [matches, setMatches] = useState(() => window.matchMedia(query).matches);
  useEffect(() => {
    const media = window.matchMedia(query);
    const onChange = (): void => setMatches(media.matches);
    media.addEventListener("change", onChange);
    return () => media.removeEventListener("change", onChange);
  }, [query]);
  return matches;
}
