import { create } from "@bufbuild/protobuf";
import { type TurnLogEntry, TurnLogEntrySchema } from "../../gen/parley/storage/v1/turn_log_pb.js";
import type { TurnEvent } from "../engine/turn.ts";

/** Version of the stored log format that this release writes. */
const LOG_SCHEMA_VERSION = 1;

/**
 * What comes within this time after an append waits for the next one, in milliseconds. Measured (DESIGN §8): half the
 * messages and a fifth less CPU for a delay that nobody sees.
 */
const COALESCE_MS = 25;

/**
 * Numbers a turn's events and appends them in batches, one append at a time: what comes while one is under way goes with
 * the next. Neighbouring text deltas of an agent become one event, before they have a number. A message's first text
 * waits for nothing but the end of its tick, and takes along what stands before it.
 */
export function createTurnLogWriter({
  lastSequence,
  append,
  onError,
}: {
  /** Sequence of the newest entry that the log has. */
  lastSequence: bigint;
  append(entries: readonly TurnLogEntry[]): Promise<void>;
  /** An append failed for good; nothing more will be written. */
  onError(error: unknown): void;
}): TurnLogWriter {
  let pending: TurnEvent[] = [];
  let sequence = lastSequence;
  let underWay: Promise<void> | undefined;
  let timer: { cancel(): void } | undefined;
  // The turn's begin was an append.
  let lastFlushMs = performance.now();
  /** First text of a message is pending. */
  let urgent = false;
  /** The message that is being said has text. */
  let speaking = false;
  let closed = false;

  const take = (): TurnLogEntry[] => {
    const entries = pending.map((event) => logEntry(++sequence, event));
    pending = [];
    return entries;
  };
  const flush = (): void => {
    timer = undefined;
    if (closed || underWay !== undefined || pending.length === 0) return;
    urgent = false;
    lastFlushMs = performance.now();
    underWay = append(take()).then(
      () => {
        underWay = undefined;
        schedule();
      },
      (error: unknown) => {
        underWay = undefined;
        closed = true;
        onError(error);
      },
    );
  };
  const schedule = (): void => {
    if (closed || underWay !== undefined || timer !== undefined || pending.length === 0) return;
    const waitMs = urgent ? 0 : lastFlushMs + COALESCE_MS - performance.now();
    // At the end of this tick at the earliest, so that what one read of the model's socket brought goes together.
    timer = waitMs > 0 ? after(waitMs, flush) : atEndOfTick(flush);
  };

  return {
    emit(event) {
      if (closed) return;
      const last = pending.at(-1);
      if (event.case === "textDelta" && last?.case === "textDelta" && last.value.agent === event.value.agent) {
        last.value = { ...last.value, text: `${last.value.text}${event.value.text}` };
      } else {
        pending.push(event);
      }
      if (event.case === "textDelta" && !speaking) {
        urgent = true;
        timer?.cancel();
        timer = undefined;
      }
      speaking = event.case === "textDelta" || (speaking && event.case !== "messageCompleted");
      schedule();
    },
    async finish() {
      timer?.cancel();
      while (underWay !== undefined) await underWay;
      const wasClosed = closed;
      closed = true;
      return wasClosed ? [] : take();
    },
  };
}

function after(ms: number, run: () => void): { cancel(): void } {
  const timer = setTimeout(run, ms);
  return { cancel: () => clearTimeout(timer) };
}

function atEndOfTick(run: () => void): { cancel(): void } {
  const immediate = setImmediate(run);
  return { cancel: () => clearImmediate(immediate) };
}

export interface TurnLogWriter {
  emit(event: TurnEvent): void;
  /** Stops appending and returns the numbered entries that are not appended yet, for the turn's commit. */
  finish(): Promise<TurnLogEntry[]>;
}

/** A numbered event as it is stored. */
export function logEntry(sequence: bigint, event: TurnEvent): TurnLogEntry {
  return create(TurnLogEntrySchema, { schemaVersion: LOG_SCHEMA_VERSION, event: { sequence, event } });
}
