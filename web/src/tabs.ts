import type { SentTurn } from "./sent-turn.ts";

/** What a tab tells the other tabs of this browser. */
export type TabNews =
  /** A message was sent, or its turn has begun. */
  | { readonly kind: "turn"; readonly sent: SentTurn }
  /** A turn has ended, or its message was taken back or refused: then it has no turn id. */
  | { readonly kind: "turn-ended"; readonly sent: SentTurn }
  | { readonly kind: "session-deleted"; readonly userId: string; readonly sessionId: string };

/** The tabs of this browser that show this service. */
export interface Tabs {
  /** Tells all but this one. */
  tell(news: TabNews): void;
  onNews(listener: (news: TabNews) => void): void;
}

export function createTabs(): Tabs {
  const channel = new BroadcastChannel("parley");
  return {
    tell: (news) => channel.postMessage(news),
    onNews: (listener) => channel.addEventListener("message", ({ data }) => listener(data as TabNews)),
  };
}

/**
 * Waits until no other tab sends a turn's message, and resolves to how to let the next one do so. A tab that is closed
 * lets it. On origins that are not secure there are no locks: each tab sends, and the key makes it one turn.
 */
export function lockTurn(sent: SentTurn, signal: AbortSignal): Promise<() => void> {
  const { locks } = navigator as { locks?: LockManager };
  if (locks === undefined) return Promise.resolve(() => undefined);
  return new Promise((resolve, reject) => {
    const hold = (): Promise<void> => new Promise((release) => resolve(release));
    locks.request(`parley.turn/${sent.key}`, { signal }, hold).catch(reject);
  });
}
