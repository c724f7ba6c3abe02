import { useEffect, useRef, useState } from "preact/hooks";
import type { Session } from "../../gen/parley/chat/v1/session_pb.js";
import { useCell } from "./cell.ts";
import { ConfirmDelete } from "./confirm-delete.tsx";
import type { ConsoleConfig } from "./console-config.ts";
import type { ConsoleModel } from "./console-model.ts";
import { CostsIcon, DocsIcon, PlusIcon, TrashIcon } from "./icons.tsx";
import { ProblemNote } from "./problem-note.tsx";
import { agoText } from "./sentences.ts";
import { nameOf, type SessionList } from "./session-list.ts";
import { UserField } from "./user-field.tsx";

interface SessionsPaneProps {
  readonly model: ConsoleModel;
  readonly userId: string;
  readonly list: SessionList;
  readonly openSessionId: string;
  /** Out of sight, and out of the tab order. */
  readonly hidden: boolean;
  /** Lies over the page. */
  readonly drawer: boolean;
  readonly config: ConsoleConfig | undefined;
  /** Whether the Costs page is in sight, and no session. */
  readonly costs: boolean;
  /** Called when something was chosen. */
  onLeave(): void;
}

export function SessionsPane({
  model,
  userId,
  list,
  openSessionId,
  hidden,
  drawer,
  config,
  costs,
  onLeave,
}: SessionsPaneProps) {
  const { sessions, nextPageToken, loading, problem } = useCell(list.state);
  const [doomed, setDoomed] = useState<Session>();
  const newButton = useRef<HTMLButtonElement>(null);

  useEffect(() => {
    if (drawer) newButton.current?.focus();
  }, [drawer]);

  const startNew = (): void => {
    model.newSession();
    onLeave();
    focusMessageSoon();
  };

  return (
    <aside id="sessions" class={drawer ? "sessions sessions-drawer" : "sessions"} aria-label="Sessions" hidden={hidden}>
      <div class="sessions-head">
        <p class="brand">
          <img src="/favicon.svg" alt="" width="22" height="22" />
          Parley
        </p>
        <button ref={newButton} type="button" class="quiet-button" onClick={startNew}>
          <PlusIcon />
          New session
        </button>
      </div>
      <nav class="sessions-list" aria-label="Your sessions">
        {problem !== undefined && (
          <>
            <ProblemNote problem={problem} />
            <button type="button" class="quiet-button more-button" onClick={() => void list.refresh()}>
              Try again
            </button>
          </>
        )}
        {sessions.length === 0 && !loading && problem === undefined && <p class="hint">No sessions yet.</p>}
        <ul>
          {sessions.map((session) => (
            <SessionItem
              key={session.sessionId}
              session={session}
              open={!costs && session.sessionId === openSessionId}
              onOpen={() => {
                model.openSession(session.sessionId);
                onLeave();
                focusMessageSoon();
              }}
              onDelete={() => setDoomed(session)}
            />
          ))}
        </ul>
        {nextPageToken !== "" && (
          <button
            type="button"
            class="quiet-button more-button"
            disabled={loading}
            onClick={() => void list.loadMore()}
          >
            More sessions
          </button>
        )}
      </nav>
      <nav class="sessions-pages" aria-label="Pages">
        {/* biome-ignore lint/a11y/useValidAnchor: it leads to a page; the click puts the drawer away besides */}
        <a class="page-link" href="#/costs" aria-current={costs ? "page" : undefined} onClick={onLeave}>
          <CostsIcon />
          Costs
        </a>
        <a class="page-link" href="/docs/">
          <DocsIcon />
          Documentation
        </a>
      </nav>
      <div class="sessions-foot">
        <UserField userId={userId} onChange={(next) => model.setUser(next)} />
        {config !== undefined && <AboutService config={config} />}
      </div>
      {doomed !== undefined && (
        <ConfirmDelete
          name={nameOf(doomed)}
          onConfirm={() => model.deleteSession(doomed.sessionId)}
          onClose={() => {
            setDoomed(undefined);
            // The browser gives the focus back to the button that asked, unless that went with its session.
            if (document.activeElement === document.body) newButton.current?.focus();
          }}
        />
      )}
    </aside>
  );
}

function SessionItem({
  session,
  open,
  onOpen,
  onDelete,
}: {
  session: Session;
  open: boolean;
  onOpen(): void;
  onDelete(): void;
}) {
  const name = nameOf(session);
  const changedMs = Number(session.updateTime?.seconds ?? 0n) * 1_000;
  const messages = Number(session.messageCount);
  return (
    <li class="session">
      <button type="button" class="session-open" aria-current={open ? "page" : undefined} onClick={onOpen}>
        <span class="session-name">{name}</span>
        <span class="session-facts">
          {messages === 1 ? "1 message" : `${messages.toLocaleString("en")} messages`}
          {changedMs > 0 && ` · ${agoText(changedMs, Date.now())}`}
        </span>
      </button>
      <button type="button" class="icon-button session-delete" aria-label={`Delete ${name}`} onClick={onDelete}>
        <TrashIcon />
      </button>
    </li>
  );
}

function AboutService({ config }: { config: ConsoleConfig }) {
  const release = [config.version !== "" && `Parley ${config.version}`, config.track, config.model]
    .filter(Boolean)
    .join(" · ");
  return (
    <p class="hint about">
      {release}
      {config.embeddedStore && (
        <>
          <br />
          Sessions are kept in memory, until the service stops.
        </>
      )}
    </p>
  );
}

/** After the page has rendered: the field may not be there yet. */
function focusMessageSoon(): void {
  requestAnimationFrame(() => document.getElementById("message")?.focus());
}
