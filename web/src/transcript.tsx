import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import type { TurnState } from "./turn-state.ts";
import { TurnView } from "./turn-view.tsx";

/** Who is this near to the end follows it, in pixels. */
const NEAR_END_PX = 80;

interface TranscriptProps {
  readonly turns: readonly TurnState[];
  readonly loading: boolean;
  /** There are messages before those shown. */
  readonly older: boolean;
  readonly children: ComponentChildren;
  onOlder(): void;
}

/** The turns, oldest first. Follows the end while the reader is there, and keeps still when older turns come in front. */
export function Transcript({ turns, loading, older, children, onOlder }: TranscriptProps) {
  const scroller = useRef<HTMLElement>(null);
  const seen = useRef({ first: "", last: "", height: 0, following: true });
  const first = turns[0]?.key ?? "";
  const last = turns.at(-1)?.key ?? "";

  useLayoutEffect(() => {
    const element = scroller.current;
    if (element === null) return;
    const before = seen.current;
    if (last !== before.last) before.following = true;
    if (first !== before.first && last === before.last && before.first !== "") {
      element.scrollTop += element.scrollHeight - before.height;
    } else if (before.following) {
      element.scrollTop = element.scrollHeight;
    }
    seen.current = { ...before, first, last, height: element.scrollHeight };
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
          <TurnView key={turn.key} turn={turn} />
        ))}
        {children}
      </div>
    </section>
  );
}
