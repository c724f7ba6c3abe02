import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Session } from "../../gen/parley/chat/v1/session_pb.js";
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
  const { sessions, loading } = useCell(list.state);
  const [config, setConfig] = useState<ConsoleConfig>();
  const [drawerOpen, setDrawerOpen] = useState(false);
  const narrow = useMedia(NARROW);
  const menuButton = useRef<HTMLButtonElement>(null);
  const session = sessions.find((each) => each.sessionId === sessionId);
  const title = titleOf({ session, sessionId, loading });

  useEffect(() => {
    void fetchConsoleConfig().then(setConfig);
  }, []);
  useEffect(() => {
    document.title = title === "" ? "Parley" : `${title} · Parley`;
  }, [title]);

  const closeDrawer = (): void => setDrawerOpen(false);
  const wasOpen = useRef(false);
  useLayoutEffect(() => {
    // Not before the page behind the drawer can have the focus again. Who leaves for a session moves it on to the message.
    if (wasOpen.current && !drawerOpen) menuButton.current?.focus();
    wasOpen.current = drawerOpen;
  }, [drawerOpen]);
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      // Escape belongs to an input method first, then to a dialog.
      if (event.key !== "Escape" || event.isComposing || event.defaultPrevented) return;
      if (document.querySelector("dialog[open]") !== null) return;
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
        <ConversationPane
          key={conversation}
          conversation={conversation}
          session={session}
          config={config}
          onNewSession={(draft) => model.newSession(draft)}
        />
      </main>
    </div>
  );
}

/** The list may not have the session: it is still being read, or the session is further down, or gone. */
function titleOf({
  session,
  sessionId,
  loading,
}: {
  session: Session | undefined;
  sessionId: string;
  loading: boolean;
}): string {
  if (session !== undefined) return nameOf(session);
  if (sessionId === "") return "New session";
  return loading ? "" : `Session ${sessionId}`;
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
