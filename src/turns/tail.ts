import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import { Failure } from "../failure.ts";
import type { TurnRef, TurnStore } from "./ports.ts";
import { failureOfLastEntry, isLastEntry, sequenceOf } from "./turn-log.ts";

/** A reader that has been silent for this long hears a heartbeat, in milliseconds (DESIGN §3). */
const HEARTBEAT_MS = 15_000;

/** A reader of another process's turn looks for itself after this much silence, in milliseconds: messages may be lost. */
const LOOK_MS = 3_000;

/** Entries read from the store at a time. */
const READ_LIMIT = 500;

/** Entries that wait in memory for a slow reader; past that they are read again from the store. */
const BUFFER_LIMIT = 1_000;

/** What a reader gets: entries without gap or duplicate, or a sign of life. */
export type TailItem =
  | { readonly case: "entries"; readonly entries: readonly TurnLogEntry[] }
  | { readonly case: "heartbeat" };

/**
 * Reads a turn's log: what is there after `afterSequence`, then what comes, to the last entry. Ends there, by a throw if
 * the turn's end is no OK. Throws the signal's reason when that is aborted, TURN_NOT_FOUND, TURN_LOG_TRIMMED, or what
 * `lost` aborts with, unless that is LEASE_LOST: then another process goes on with the turn, and so does the reader. Throws
 * the reason of `leaving` when that is aborted and there is nothing to read.
 */
export async function* tailTurn({
  store,
  ref,
  afterSequence,
  head,
  signal,
  lost,
  leaving,
}: {
  store: Pick<TurnStore, "follow" | "readLog">;
  ref: TurnRef;
  afterSequence: bigint;
  /** Entries after `afterSequence` that the caller has already; then the store is not asked for them. */
  head?: readonly TurnLogEntry[];
  signal: AbortSignal;
  /** Of a turn that this process works on; absent: the turn may be anybody's. */
  lost?: AbortSignal;
  /** Aborted when this process goes away: who reads a turn of another one is sent on. */
  leaving?: AbortSignal | undefined;
}): AsyncGenerator<TailItem, void> {
  let buffer: TurnLogEntry[] = head === undefined ? [] : [...head];
  let mayLack = head === undefined;
  let last = afterSequence;
  let wake: (() => void) | undefined;
  const stirred = (): void => wake?.();
  const onEntries = (entries: readonly TurnLogEntry[]): void => {
    if (entries.length > 0 && buffer.length < BUFFER_LIMIT) buffer.push(...entries);
    else mayLack = true;
    stirred();
  };
  let everywhere = lost === undefined;
  let unfollow = store.follow(ref, onEntries, { everywhere });
  signal.addEventListener("abort", stirred);
  lost?.addEventListener("abort", stirred);
  leaving?.addEventListener("abort", stirred);
  let spokeMs = performance.now();
  try {
    for (;;) {
      signal.throwIfAborted();
      const told = followingOn(buffer, last);
      buffer = [];
      let { entries } = told;
      if (mayLack || told.lacks) {
        mayLack = false;
        const stored = await store.readLog(ref, last, READ_LIMIT);
        if (stored === undefined) throw new Failure("TURN_NOT_FOUND");
        // A full page: there may be more, and what is followed meanwhile lies beyond it.
        if (stored.length === READ_LIMIT) mayLack = true;
        // All that was told of is durable, so that it is in here.
        entries = stored;
      }
      const newest = entries.at(-1);
      if (newest !== undefined) {
        last = sequenceOf(newest);
        yield { case: "entries", entries };
        spokeMs = performance.now();
        if (isLastEntry(newest)) {
          const failure = failureOfLastEntry(newest);
          if (failure !== undefined) throw failure;
          return;
        }
        continue;
      }
      if (lost?.aborted && !everywhere) {
        if (!isLeaseLost(lost.reason)) throw lost.reason;
        // Whoever took the lease goes on, or has written the end.
        everywhere = true;
        mayLack = true;
        const unfollowHere = unfollow;
        unfollow = store.follow(ref, onEntries, { everywhere });
        unfollowHere();
      }
      if (buffer.length > 0 || mayLack || signal.aborted) continue;
      leaving?.throwIfAborted();
      const silentMs = performance.now() - spokeMs;
      const waitMs = Math.max(0, Math.min(HEARTBEAT_MS - silentMs, everywhere ? LOOK_MS : HEARTBEAT_MS));
      const silent = await new Promise<boolean>((resolve) => {
        const timer = setTimeout(resolve, waitMs, true);
        wake = () => {
          clearTimeout(timer);
          resolve(false);
        };
      });
      wake = undefined;
      if (!silent) continue;
      mayLack = everywhere;
      if (performance.now() - spokeMs >= HEARTBEAT_MS) {
        yield { case: "heartbeat" };
        spokeMs = performance.now();
      }
    }
  } finally {
    unfollow();
    signal.removeEventListener("abort", stirred);
    lost?.removeEventListener("abort", stirred);
    leaving?.removeEventListener("abort", stirred);
  }
}

/** What goes on from a sequence, each entry once; `lacks`: there is a gap before the rest. */
function followingOn(entries: readonly TurnLogEntry[], last: bigint): { entries: TurnLogEntry[]; lacks: boolean } {
  const following: TurnLogEntry[] = [];
  let next = last + 1n;
  for (const entry of entries) {
    const sequence = sequenceOf(entry);
    if (sequence > next) return { entries: following, lacks: true };
    if (sequence < next) continue;
    following.push(entry);
    next++;
  }
  return { entries: following, lacks: false };
}

function isLeaseLost(reason: unknown): boolean {
  return reason instanceof Failure && reason.reason === "LEASE_LOST";
}
