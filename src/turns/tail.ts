import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import { Failure } from "../failure.ts";
import type { TurnRef, TurnStore } from "./ports.ts";
import { failureOfLastEntry, isLastEntry } from "./turn-end.ts";

/** A reader that has been silent for this long hears a heartbeat, in milliseconds (DESIGN §3). */
const HEARTBEAT_MS = 15_000;

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
 * `lost` aborts with: this process cannot go on with the turn and knows of nobody who does.
 */
export async function* tailTurn({
  store,
  ref,
  afterSequence,
  head,
  signal,
  lost,
}: {
  store: Pick<TurnStore, "follow" | "readLog">;
  ref: TurnRef;
  afterSequence: bigint;
  /** Entries after `afterSequence` that the caller has already; then the store is not asked for them. */
  head?: readonly TurnLogEntry[];
  signal: AbortSignal;
  lost?: AbortSignal;
}): AsyncGenerator<TailItem, void> {
  let buffer: TurnLogEntry[] = head === undefined ? [] : [...head];
  let mayLack = head === undefined;
  let last = afterSequence;
  let askedForEnd = false;
  let wake: (() => void) | undefined;
  const stirred = (): void => wake?.();
  const unfollow = store.follow(ref, (entries) => {
    if (buffer.length < BUFFER_LIMIT) buffer.push(...entries);
    else mayLack = true;
    stirred();
  });
  signal.addEventListener("abort", stirred);
  lost?.addEventListener("abort", stirred);
  try {
    for (;;) {
      signal.throwIfAborted();
      let entries = buffer;
      buffer = [];
      entries = entries.filter((entry) => sequenceOf(entry) > last);
      const first = entries[0];
      if (mayLack || (first !== undefined && sequenceOf(first) > last + 1n)) {
        mayLack = false;
        const stored = await store.readLog(ref, last, READ_LIMIT);
        if (stored === undefined) throw new Failure("TURN_NOT_FOUND");
        // A full page: there may be more, and what is followed meanwhile lies beyond it.
        if (stored.length === READ_LIMIT) mayLack = true;
        const end = stored.length === 0 ? last : sequenceOf(stored[stored.length - 1] as TurnLogEntry);
        entries = mayLack ? stored : [...stored, ...entries.filter((entry) => sequenceOf(entry) > end)];
      }
      const newest = entries.at(-1);
      if (newest !== undefined) {
        last = sequenceOf(newest);
        yield { case: "entries", entries };
        if (isLastEntry(newest)) {
          const failure = failureOfLastEntry(newest);
          if (failure !== undefined) throw failure;
          return;
        }
        continue;
      }
      if (lost?.aborted) {
        // Whoever took the lease has written the turn's end, which is this reader's end too.
        if (askedForEnd || !isLeaseLost(lost.reason)) throw lost.reason;
        askedForEnd = true;
        mayLack = true;
      }
      if (buffer.length > 0 || mayLack || signal.aborted) continue;
      const silent = await new Promise<boolean>((resolve) => {
        const timer = setTimeout(resolve, HEARTBEAT_MS, true);
        wake = () => {
          clearTimeout(timer);
          resolve(false);
        };
      });
      wake = undefined;
      if (silent) yield { case: "heartbeat" };
    }
  } finally {
    unfollow();
    signal.removeEventListener("abort", stirred);
    lost?.removeEventListener("abort", stirred);
  }
}

function isLeaseLost(reason: unknown): boolean {
  return reason instanceof Failure && reason.reason === "LEASE_LOST";
}

function sequenceOf(entry: TurnLogEntry): bigint {
  return entry.event?.sequence ?? 0n;
}
