import fc from "fast-check";
import { afterEach, describe, expect, it, vi } from "vitest";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import { Failure } from "../../src/failure.ts";
import type { TurnStore } from "../../src/turns/ports.ts";
import { type TailItem, tailTurn } from "../../src/turns/tail.ts";
import { logEntry } from "../../src/turns/turn-log-writer.ts";
import { eventually } from "../support/eventually.ts";

const ref = { tenant: "default", sessionId: "s1", turnId: "t1" };

/** Entries `first` to `last`; the last one of a log is its end. */
function entries(first: number, last: number, end = Number.NaN): TurnLogEntry[] {
  return Array.from({ length: last - first + 1 }, (_, index) => {
    const sequence = BigInt(first + index);
    if (first + index === end) {
      return logEntry(sequence, { case: "turnCompleted", value: { finishReason: FinishReason.STOP } });
    }
    return logEntry(sequence, { case: "textDelta", value: { agent: "a", text: `${sequence} ` } });
  });
}

/** A log that grows by `append`, and followers that are told of what `publish` gets: all of it, or part, or twice. */
function createLog() {
  const log: TurnLogEntry[] = [];
  const followers = new Set<(entries: readonly TurnLogEntry[]) => void>();
  const reads: bigint[] = [];
  const store: Pick<TurnStore, "follow" | "readLog"> = {
    follow(_, onEntries) {
      followers.add(onEntries);
      return () => void followers.delete(onEntries);
    },
    async readLog(_, after, limit) {
      reads.push(after);
      await new Promise((resolve) => setImmediate(resolve));
      return log.slice(Number(after), Number(after) + limit);
    },
  };
  return {
    store,
    reads,
    followers,
    append: (added: readonly TurnLogEntry[]) => void log.push(...added),
    publish: (told: readonly TurnLogEntry[]) => {
      for (const follower of followers) follower(told);
    },
  };
}

function numbersIn(items: readonly TailItem[]): number[] {
  return items.flatMap((item) =>
    item.case === "entries" ? item.entries.map(({ event }) => Number(event?.sequence)) : [],
  );
}

const upTo = (last: number): number[] => Array.from({ length: last }, (_, index) => index + 1);

async function readAll(tail: AsyncIterable<TailItem>, pause = async (): Promise<void> => undefined): Promise<number[]> {
  const items: TailItem[] = [];
  for await (const item of tail) {
    items.push(item);
    await pause();
  }
  return numbersIn(items);
}

const tick = () => new Promise<void>((resolve) => setImmediate(resolve));

afterEach(() => {
  vi.useRealTimers();
});

describe("the reader of a turn's log", () => {
  it("gets each entry once and in order, whatever it is told of when, twice or not at all", async () => {
    const step = fc.record({
      size: fc.integer({ min: 1, max: 5 }),
      /** How much of what came before is told of once more. */
      overlap: fc.integer({ min: 0, max: 4 }),
      told: fc.boolean(),
      ticks: fc.integer({ min: 0, max: 2 }),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 1, maxLength: 20 }),
        fc.boolean(),
        fc.integer({ min: 0, max: 2 }),
        async (steps, hasHead, readerTicks) => {
          const log = createLog();
          const length = 1 + steps.reduce((sum, { size }) => sum + size, 0);
          const all = entries(1, length, length);
          log.append(all.slice(0, 1));
          const tail = tailTurn({
            store: log.store,
            ref,
            afterSequence: 0n,
            ...(hasHead ? { head: all.slice(0, 1) } : {}),
            signal: new AbortController().signal,
          });
          const reading = readAll(tail, async () => {
            for (let count = 0; count < readerTicks; count++) await tick();
          });
          let appended = 1;
          for (const [index, { size, overlap, told, ticks }] of steps.entries()) {
            const first = appended;
            appended += size;
            log.append(all.slice(first, appended));
            // Somebody tells of the end: that is how a reader learns that there is more.
            if (told || index === steps.length - 1) log.publish(all.slice(Math.max(0, first - overlap), appended));
            for (let count = 0; count < ticks; count++) await tick();
          }
          expect(await reading).toEqual(upTo(length));
          expect(log.followers.size).toBe(0);
        },
      ),
      { numRuns: 200 },
    );
  });

  it("begins after the cursor, and reads a long log page by page", async () => {
    const log = createLog();
    log.append(entries(1, 1_234, 1_234));
    const signal = new AbortController().signal;
    expect(await readAll(tailTurn({ store: log.store, ref, afterSequence: 0n, signal }))).toEqual(upTo(1_234));
    expect(log.reads).toEqual([0n, 500n, 1_000n]);
    expect(await readAll(tailTurn({ store: log.store, ref, afterSequence: 1_230n, signal }))).toEqual([
      1_231, 1_232, 1_233, 1_234,
    ]);
  });

  it("that is slow keeps only so much in memory, and misses nothing", async () => {
    const log = createLog();
    const all = entries(1, 5_000, 5_000);
    log.append(all.slice(0, 1));
    const signal = new AbortController().signal;
    const tail = tailTurn({ store: log.store, ref, afterSequence: 0n, head: all.slice(0, 1), signal });
    const first = await tail.next();
    for (let at = 1; at < 5_000; at += 100) {
      log.append(all.slice(at, at + 100));
      log.publish(all.slice(at, at + 100));
    }
    expect(first.value?.case).toBe("entries");
    expect([1, ...(await readAll(tail))]).toEqual(upTo(5_000));
    expect(log.reads.length).toBeGreaterThan(0);
  });

  it("hears a heartbeat after each 15 s of silence, and none while there is something to read", async () => {
    vi.useFakeTimers();
    const log = createLog();
    const all = entries(1, 3, 3);
    log.append(all);
    const { signal } = new AbortController();
    const { signal: lost } = new AbortController();
    const tail = tailTurn({ store: log.store, ref, afterSequence: 0n, head: all.slice(0, 1), signal, lost });
    expect((await tail.next()).value?.case).toBe("entries");
    const next = tail.next();
    await vi.advanceTimersByTimeAsync(14_999);
    log.publish(all.slice(1, 2));
    expect(numbersIn([(await next).value as TailItem])).toEqual([2]);
    for (let beat = 0; beat < 3; beat++) {
      const silent = tail.next();
      await vi.advanceTimersByTimeAsync(14_999);
      expect(vi.getTimerCount()).toBe(1);
      await vi.advanceTimersByTimeAsync(1);
      expect((await silent).value).toEqual({ case: "heartbeat" });
    }
    const last = tail.next();
    await vi.advanceTimersByTimeAsync(1);
    log.publish(all.slice(2));
    expect(numbersIn([(await last).value as TailItem])).toEqual([3]);
    expect((await tail.next()).done).toBe(true);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("of another process's turn looks for itself after 3 s of silence, and hears heartbeats all the same", async () => {
    vi.useFakeTimers();
    const log = createLog();
    const all = entries(1, 3, 3);
    log.append(all.slice(0, 1));
    const { signal } = new AbortController();
    const tail = tailTurn({ store: log.store, ref, afterSequence: 1n, head: [], signal });
    const beat = tail.next();
    await vi.advanceTimersByTimeAsync(2_999);
    expect(log.reads).toEqual([]);
    await vi.advanceTimersByTimeAsync(12_001);
    expect((await beat).value).toEqual({ case: "heartbeat" });
    expect(log.reads.length).toBeGreaterThanOrEqual(4);
    // Nobody tells of it.
    log.append(all.slice(1));
    const next = tail.next();
    await vi.advanceTimersByTimeAsync(3_000);
    expect(numbersIn([(await next).value as TailItem])).toEqual([2, 3]);
    expect((await tail.next()).done).toBe(true);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("ends with its signal's reason, and follows no longer", async () => {
    const log = createLog();
    const stop = new AbortController();
    const head = entries(1, 1);
    const tail = tailTurn({ store: log.store, ref, afterSequence: 0n, head, signal: stop.signal });
    await tail.next();
    const next = tail.next();
    await tick();
    stop.abort(new Error("enough"));
    await expect(next).rejects.toThrow("enough");
    expect(log.followers.size).toBe(0);
  });

  describe("of a turn that this process has lost", () => {
    const start = (reason: Failure, written: TurnLogEntry[]) => {
      const log = createLog();
      log.append([...entries(1, 1), ...written]);
      const lost = new AbortController();
      const tail = tailTurn({
        store: log.store,
        ref,
        afterSequence: 0n,
        head: entries(1, 1),
        signal: new AbortController().signal,
        lost: lost.signal,
      });
      return { reading: readAll(tail), lose: () => lost.abort(reason), log };
    };

    it("reads the end that the new owner has written", async () => {
      const { reading, lose } = start(new Failure("LEASE_LOST"), entries(2, 4, 4));
      await tick();
      lose();
      expect(await reading).toEqual([1, 2, 3, 4]);
    });

    it("reads on with the new owner's events, however late they come", async () => {
      const { reading, lose, log } = start(new Failure("LEASE_LOST"), entries(2, 2));
      await tick();
      lose();
      await eventually(() => expect(log.reads).toEqual([1n]));
      const added = entries(3, 5, 5);
      log.append(added);
      log.publish(added.slice(1));
      expect(await reading).toEqual([1, 2, 3, 4, 5]);
      expect(log.followers.size).toBe(0);
    });

    it.each(["STORE_UNAVAILABLE", "SESSION_DELETED", "DRAINING"] as const)(
      "ends with %s where nobody has written one",
      async (reason) => {
        const { reading, lose } = start(new Failure(reason), []);
        await tick();
        lose();
        await expect(reading).rejects.toMatchObject({ reason });
      },
    );
  });
});
