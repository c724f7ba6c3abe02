import type { Client } from "@connectrpc/connect";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Session } from "../../gen/parley/chat/v1/session_pb.js";
import type { UsageService } from "../../gen/parley/usage/v1/usage_service_pb.js";
import { useCell } from "./cell.ts";
import { type ConsoleConfig, fetchConsoleConfig } from "./console-config.ts";
import type { ConsoleModel } from "./console-model.ts";
import { ConversationPane } from "./conversation-pane.tsx";
import { CostsPage } from "./costs-page.tsx";
import { MenuIcon } from "./icons.tsx";
import { nameOf } from "./session-list.ts";
import { SessionsPane } from "./sessions-pane.tsx";

/** Below this width the sessions are a drawer; the same as in styles.css. */
const NARROW = "(max-width: 639.98px)";

export function ConsolePage({ model, usage }: { model: ConsoleModel; usage: Client<typeof UsageService> }) {
  const { userId, list, conversation, view } = useCell(model.state);
  const { sessionId } = useCell(conversation.state, { perFrame: true });
  const { sessions, loading } = useCell(list.state);
  const [config, setConfig] = useState<ConsoleConfig>();
  const [drawerOpen, setDrawerOpen] = useState(false);
  const narrow = useMedia(NARROW);
  const menuButton = useRef<HTMLButtonElement>(null);
  const session = sessions.find((each) => each.sessionId === sessionId);
  const costs = view === "costs";
  const title = costs ? "Costs" : titleOf({ session, sessionId, loading });

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
      else if (!costs) conversation.stop();
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, [conversation, costs, drawerOpen, narrow]);

  const drawer = narrow && drawerOpen;
  return (
    <div class="page">
      <button type="button" class="skip-link" onClick={costs ? focusCosts : focusMessage}>
        {costs ? "Skip to the costs" : "Skip to the message"}
      </button>
      <SessionsPane
        model={model}
        userId={userId}
        list={list}
        openSessionId={sessionId}
        hidden={narrow && !drawerOpen}
        drawer={drawer}
        config={config}
        costs={costs}
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
        {costs ? (
          <CostsPage usage={usage} />
        ) : (
          <ConversationPane
            key={conversation}
            conversation={conversation}
            session={session}
            config={config}
            onNewSession={(draft) => model.newSession(draft)}
          />
        )}
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

function focusCosts(): void {
  document.getElementById("costs")?.focus();
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
