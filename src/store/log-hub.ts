import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import type { TurnRef } from "../turns/ports.ts";

/**
 * Tells this process's readers of turn logs what has become durable, in the order of `publish`. Stores publish what they
 * wrote themselves; entries of other replicas may be published as well, also twice: readers drop what they have.
 */
export interface LogHub {
  publish(ref: TurnRef, entries: readonly TurnLogEntry[]): void;
  /** Calls `onEntries`, which must not throw, at each publish of the turn; returns how to stop. */
  follow(ref: TurnRef, onEntries: (entries: readonly TurnLogEntry[]) => void): () => void;
}

export function createLogHub(): LogHub {
  const followers = new Map<string, Set<(entries: readonly TurnLogEntry[]) => void>>();
  return {
    publish(ref, entries) {
      if (entries.length === 0) return;
      for (const onEntries of followers.get(nameOf(ref)) ?? []) onEntries(entries);
    },
    follow(ref, onEntries) {
      const name = nameOf(ref);
      const ofTurn = followers.get(name) ?? new Set();
      followers.set(name, ofTurn);
      // A wrapper of its own, so that following twice with one function is two followers.
      const follower = (entries: readonly TurnLogEntry[]): void => onEntries(entries);
      ofTurn.add(follower);
      return () => {
        ofTurn.delete(follower);
        if (ofTurn.size === 0 && followers.get(name) === ofTurn) followers.delete(name);
      };
    },
  };
}

function nameOf({ tenant, sessionId, turnId }: TurnRef): string {
  return `${tenant}/${sessionId}/${turnId}`;
}
