import { describe, expect, it, vi } from "vitest";
import { MAX_LOG_EVENTS, type Store, type TurnRef } from "../../src/turns/ports.ts";
import { commit, entries, expectFailure } from "./store-contract.ts";
import { beginNew, type StoresUnderTest, WAIT } from "./turns-contract.ts";

/**
 * What a follower hears from now on: sequences, and undefined for each time that some may have been missed, or that the
 * store only says that there is something. It reads the log then, as readers do.
 */
export function listen(store: Store, ref: TurnRef) {
  const heard: (bigint | undefined)[] = [];
  const numbers = () => heard.filter((one) => one !== undefined);
  let from: bigint | undefined;
  let stopped = false;
  const readLog = async (): Promise<void> => {
    if (from === undefined) from = (await store.getTurn(ref))?.lastSequence ?? 0n;
    const missed = (await store.readLog(ref, numbers().at(-1) ?? from, 1_000)) ?? [];
    if (!stopped) heard.push(...missed.map(({ event }) => event?.sequence), undefined);
  };
  let reading = Promise.resolve();
  const unfollow = store.follow(
    ref,
    (news) => {
      if (news.length > 0) heard.push(...news.map(({ event }) => event?.sequence));
      // A store that does not answer says once more that some may have been missed.
      else reading = reading.then(readLog).catch(() => undefined);
    },
    { everywhere: true },
  );
  const stop = (): void => {
    stopped = true;
    unfollow();
  };
  return { heard, numbers, stop };
}

const upTo = (last: number) => Array.from({ length: last - 1 }, (_, index) => BigInt(index + 2));

/** Readers of turns, also of other processes'. */
export function describeFollowing(stores: StoresUnderTest): void {
  describe("a follower of another process's turn", () => {
    it("hears every append in order, and the commit, once it is told that it follows", async () => {
      const { store } = stores;
      const other = await stores.join();
      const lease = await beginNew(store);
      const { heard, numbers, stop } = listen(other, lease);
      if (other !== store) await vi.waitFor(() => expect(heard).toContain(undefined), WAIT);
      for (let first = 2n; first < 102n; first += 4n) await store.append(lease, entries(first, first + 3n));
      await store.commitTurn(lease, commit(102n));
      await vi.waitFor(() => expect(numbers()).toEqual(upTo(102)), WAIT);
      stop();
    });

    it("hears nothing of other turns, of the same session or another", async () => {
      const { store } = stores;
      const other = await stores.join();
      const lease = await beginNew(store);
      const { heard, numbers, stop } = listen(other, { ...lease, turnId: `${lease.turnId}x` });
      const own = listen(other, lease);
      if (other !== store) await vi.waitFor(() => expect(heard).toContain(undefined), WAIT);
      await vi.waitFor(async () => {
        const { lastSequence = 0n } = (await store.getTurn(lease)) ?? {};
        await store.append(lease, entries(lastSequence + 1n, lastSequence + 1n));
        expect(own.numbers().length).toBeGreaterThan(0);
      }, WAIT);
      expect(numbers()).toEqual([]);
      stop();
      own.stop();
    });

    it("that stops hears no more, while others of its process go on", async () => {
      const { store } = stores;
      const other = await stores.join();
      const lease = await beginNew(store);
      const [first, second] = [listen(other, lease), listen(other, lease)];
      if (other !== store) await vi.waitFor(() => expect(first.heard).toContain(undefined), WAIT);
      await store.append(lease, entries(2n, 2n));
      await vi.waitFor(() => expect(first.numbers()).toEqual([2n]), WAIT);
      first.stop();
      first.stop();
      await store.append(lease, entries(3n, 3n));
      await vi.waitFor(() => expect(second.numbers()).toEqual([2n, 3n]), WAIT);
      expect(first.numbers()).toEqual([2n]);
      second.stop();
      const again = listen(other, lease);
      if (other !== store) await vi.waitFor(() => expect(again.heard).toContain(undefined), WAIT);
      await store.append(lease, entries(4n, 4n));
      await vi.waitFor(() => expect(again.numbers()).toEqual([4n]), WAIT);
      expect(second.numbers()).toEqual([2n, 3n]);
    });
  });

  describe("a reader that comes too late", () => {
    it("is told what the log has left", async () => {
      const { store } = stores;
      const lease = await beginNew(store);
      const last = MAX_LOG_EVENTS + 7;
      for (let first = 2; first <= last; first += 1_000) {
        await store.append(lease, entries(BigInt(first), BigInt(Math.min(first + 999, last))));
      }
      const trimmed = await expectFailure(store.readLog(lease, 0n, 10), "TURN_LOG_TRIMMED");
      expect(trimmed.facts.metadata).toEqual({ oldest_sequence: "8", newest_sequence: String(last) });
      expect((await store.readLog(lease, 7n, 1))?.[0]?.event?.sequence).toBe(8n);
      expect(await store.readLog(lease, BigInt(last), 10)).toEqual([]);
    });
  });
}
