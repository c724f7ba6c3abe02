import type { Store } from "../turns/ports.ts";
import { createMemoryKeyStore } from "./memory-key-store.ts";
import { createMemorySessionStore } from "./memory-session-store.ts";
import { createMemoryState } from "./memory-state.ts";
import { createMemoryTurnStore } from "./memory-turn-store.ts";

export interface MemoryStoreOptions {
  /** A session is gone this long after its last use, in milliseconds. */
  readonly ttlMs: number;
  /** A lease that nobody renews is kept this long, in milliseconds. */
  readonly leaseMs: number;
  /** The clock, in milliseconds since the epoch; for tests. Default: the system's. */
  readonly now?: () => number;
}

/**
 * The embedded store: everything in this process, for its life. Sessions use memory until they expire or are deleted;
 * each operation first drops those that have expired.
 */
export function createMemoryStore({ ttlMs, leaseMs, now = Date.now }: MemoryStoreOptions): Store {
  const state = createMemoryState({ ttlMs, now });
  return {
    ...createMemorySessionStore(state),
    ...createMemoryTurnStore({ state, leaseMs }),
    ...createMemoryKeyStore(now),
    async ping() {},
    async close() {
      state.clear();
    },
  };
}
