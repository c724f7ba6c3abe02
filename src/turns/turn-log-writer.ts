import { create } from "@bufbuild/protobuf";
import { type TurnLogEntry, TurnLogEntrySchema } from "../../gen/parley/storage/v1/turn_log_pb.js";
import { type TurnStep, TurnStepSchema } from "../../gen/parley/storage/v1/turn_step_pb.js";
import type { UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import type { TurnEvent } from "../engine/turn.ts";

/** Version of the stored log and journal formats that this release writes. */
const SCHEMA_VERSION = 1;

/**
 * What comes within this time after an append waits for the next one, in milliseconds. Measured (DESIGN §8): half the
 * messages and a fifth less CPU for a delay that nobody sees.
 */
const COALESCE_MS = 25;

export interface TurnLogWriter {
  /** With usage: the row of the ledger that the call is to have, which is kept with the event. */
  emit(event: TurnEvent, usageRecord?: UsageRecord): void;
  /** Puts a line into the journal, behind the events before it and in one write with them. */
  record(call: number, step: TurnStep["step"]): void;
  /** Resolves when all so far is durable; rejects when it never will be. */
  flushed(): Promise<void>;
  /** Stops appending and returns the numbered entries that are not appended yet, for the turn's commit. */
  finish(): Promise<TurnLogEntry[]>;
}

/**
 * Numbers a turn's events and appends them in batches, one append at a time: what comes while one is under way goes with
 * the next. Neighbouring text deltas of an agent become one event, before they have a number. A message's first text and
 * the journal wait for nothing but the end of their tick, and take along what stands before them.
 *
 * A batch is taken in a macrotask of its own, never amid the microtasks of a tick: what is emitted and recorded without
 * waiting in between is written together or not at all.
 */
export function createTurnLogWriter({
  lastSequence,
  lastLine = 0,
  append,
  onError,
}: {
  /** Sequence of the newest entry that the log has. */
  lastSequence: bigint;
  /** Number of the newest line that the journal has. */
  lastLine?: number;
  /** False: the log takes no more entries until the turn's commit; nothing was written. */
  append(entries: readonly TurnLogEntry[], steps: readonly TurnStep[]): Promise<boolean>;
  /** An append failed for good; nothing more will be written. */
  onError(error: unknown): void;
}): TurnLogWriter {
  let pending: Pending[] = [];
  let sequence = lastSequence;
  let line = lastLine;
  let underWay: Promise<void> | undefined;
  let timer: { cancel(): void } | undefined;
  // The turn's begin was an append.
  let lastFlushMs = performance.now();
  /** First text of a message, or a line of the journal, is pending. */
  let urgent = false;
  /** The message that is being said has text. */
  let speaking = false;
  let closed: { readonly error?: unknown } | undefined;
  /** Who waits for what is pending, and who waits for the append that is under way. */
  const waiting: PromiseWithResolvers<void>[] = [];
  let waitingForAppend: PromiseWithResolvers<void>[] = [];

  const take = (): { entries: TurnLogEntry[]; steps: TurnStep[] } => {
    const entries: TurnLogEntry[] = [];
    const steps: TurnStep[] = [];
    for (const one of pending) {
      if ("event" in one) entries.push(logEntry(++sequence, one.event, one.usageRecord));
      else steps.push(create(TurnStepSchema, { schemaVersion: SCHEMA_VERSION, line: ++line, sequence, ...one }));
    }
    pending = [];
    return { entries, steps };
  };
  const close = (how: { readonly error?: unknown }): void => {
    closed = how;
    for (const one of waiting.splice(0)) one.reject(how.error ?? new Error("the log is closed"));
  };
  const flush = (): void => {
    timer = undefined;
    if (closed !== undefined || underWay !== undefined || pending.length === 0) return;
    urgent = false;
    lastFlushMs = performance.now();
    const batch = pending;
    const before = { sequence, line };
    const resolved = waiting.splice(0);
    waitingForAppend = resolved;
    const { entries, steps } = take();
    underWay = append(entries, steps).then(
      (appended) => {
        underWay = undefined;
        if (appended) {
          for (const one of resolved) one.resolve();
          schedule();
          return;
        }
        // Nothing was written: it goes with the commit, merged with what came meanwhile.
        const later = pending;
        pending = [];
        ({ sequence, line } = before);
        for (const one of [...batch, ...later]) put(one);
        waiting.push(...resolved);
        close({});
      },
      (error: unknown) => {
        underWay = undefined;
        waiting.push(...resolved);
        close({ error });
        onError(error);
      },
    );
  };
  const schedule = (): void => {
    if (closed !== undefined || underWay !== undefined || timer !== undefined || pending.length === 0) return;
    const waitMs = urgent ? 0 : lastFlushMs + COALESCE_MS - performance.now();
    // At the end of this tick at the earliest, so that what one read of the model's socket brought goes together.
    timer = waitMs > 0 ? after(waitMs, flush) : atEndOfTick(flush);
  };
  const hurry = (): void => {
    urgent = true;
    timer?.cancel();
    timer = undefined;
  };
  const put = (one: Pending): void => {
    const last = pending.at(-1);
    const merged =
      last !== undefined && "event" in last && "event" in one ? mergedDelta(last.event, one.event) : undefined;
    if (merged === undefined) pending.push(one);
    else pending[pending.length - 1] = { event: merged };
  };

  return {
    emit(event, usageRecord) {
      if (closed !== undefined && "error" in closed) return;
      put({ event, usageRecord });
      if (event.case === "textDelta" && !speaking) hurry();
      speaking = event.case === "textDelta" || (speaking && event.case !== "messageCompleted");
      schedule();
    },
    record(call, step) {
      if (closed !== undefined && "error" in closed) return;
      put({ call, step });
      hurry();
      schedule();
    },
    flushed() {
      if (closed !== undefined) return Promise.reject(closed.error ?? new Error("the log is closed"));
      if (pending.length === 0 && underWay === undefined) return Promise.resolve();
      const flushed = Promise.withResolvers<void>();
      if (pending.length === 0) {
        waitingForAppend.push(flushed);
        return flushed.promise;
      }
      waiting.push(flushed);
      hurry();
      schedule();
      return flushed.promise;
    },
    async finish() {
      timer?.cancel();
      while (underWay !== undefined) await underWay;
      const failed = closed !== undefined && "error" in closed;
      close({ error: new Error("the log is closed") });
      return failed ? [] : take().entries;
    },
  };
}

/** An event or a journal line that has no number yet. */
type Pending =
  | { readonly event: TurnEvent; readonly usageRecord?: UsageRecord | undefined }
  | { readonly call: number; readonly step: TurnStep["step"] };

/** Two text deltas of an agent as one; undefined: they are not. */
function mergedDelta(first: TurnEvent, second: TurnEvent): TurnEvent | undefined {
  if (first.case !== "textDelta" || second.case !== "textDelta" || first.value.agent !== second.value.agent)
    return undefined;
  return { case: "textDelta", value: { ...first.value, text: `${first.value.text}${second.value.text}` } };
}

function after(ms: number, run: () => void): { cancel(): void } {
  const timer = setTimeout(run, ms);
  return { cancel: () => clearTimeout(timer) };
}

function atEndOfTick(run: () => void): { cancel(): void } {
  const immediate = setImmediate(run);
  return { cancel: () => clearImmediate(immediate) };
}

/** A numbered event as it is stored. */
export function logEntry(sequence: bigint, event: TurnEvent, usageRecord?: UsageRecord): TurnLogEntry {
  return create(TurnLogEntrySchema, {
    schemaVersion: SCHEMA_VERSION,
    event: { sequence, event },
    ...(usageRecord === undefined ? {} : { usageRecord }),
  });
}
