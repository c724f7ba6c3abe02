import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import type { Approval } from "./sent-turn.ts";
import type { TurnState } from "./turn-state.ts";
import { TurnView } from "./turn-view.tsx";

/** Who is this near to the end follows it, in pixels. */
const NEAR_END_PX = 80;

interface TranscriptProps {
  readonly turns: readonly TurnState[];
  readonly loading: boolean;
  /** There are messages before those shown. */
  readonly older: boolean;
  /** Names of each team's agents, by the team's name. */
  readonly agents: Readonly<Record<string, readonly string[]>> | undefined;
  /** The turn whose team waits for a person. */
  readonly waiting: TurnState | undefined;
  readonly children: ComponentChildren;
  onOlder(): void;
  readonly onApprove: (approvals: readonly Approval[]) => void;
  readonly onTakeBack: (key: string) => void;
  readonly onRetry: (key: string) => void;
}

/** The turns, oldest first. Follows the end while the reader is there, and keeps still when older turns come in front. */
export function Transcript({
  turns,
  loading,
  older,
  agents,
  waiting,
  children,
  onOlder,
  onApprove,
  onTakeBack,
  onRetry,
}: TranscriptProps) {
  const scroller = useRef<HTMLElement>(null);
  const seen = useRef({ first: "", last: "", height: 0, top: 0, following: true });
  const first = turns[0]?.key ?? "";
  const last = turns.at(-1)?.key ?? "";

  useLayoutEffect(() => {
    const element = scroller.current;
    if (element === null) return;
    const before = seen.current;
    // Who has scrolled up since: the browser tells of it later.
    if (element.scrollTop < before.top && element.scrollHeight >= before.height) before.following = false;
    if (last !== before.last) before.following = true;
    if (first !== before.first && last === before.last && before.first !== "") {
      element.scrollTop += element.scrollHeight - before.height;
    } else if (before.following) {
      element.scrollTop = element.scrollHeight;
    }
    seen.current = { ...before, first, last, height: element.scrollHeight, top: element.scrollTop };
  });

  return (
    <section
      ref={scroller}
      class="transcript"
      // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard in every browser
      tabIndex={0}
      aria-label="Conversation"
      aria-busy={loading}
      onScroll={(event) => {
        const { scrollHeight, scrollTop, clientHeight } = event.currentTarget;
        seen.current.following = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
      }}
    >
      <div class="transcript-inner">
        {older && (
          <button type="button" class="quiet-button older-button" disabled={loading} onClick={onOlder}>
            Older messages
          </button>
        )}
        {loading && turns.length === 0 && <p class="hint">Reading the messages …</p>}
        {turns.map((turn) => (
          <TurnView
            key={turn.key}
            turn={turn}
            several={(agents?.[turn.agentTeam]?.length ?? 0) > 1}
            waiting={turn === waiting}
            onApprove={onApprove}
            onTakeBack={onTakeBack}
            onRetry={onRetry}
          />
        ))}
        {children}
      </div>
    </section>
  );
}
