import { describe, expect, it } from "vitest";
import { commit, entries, expectFailure } from "./store-contract.ts";
import { beginNew, line, QUICK, type StoresUnderTest, untilClaimed } from "./turns-contract.ts";

/** The journal: what a turn's calls have come to, for whoever goes on with it. */
export function describeJournal(stores: StoresUnderTest): void {
  describe("the journal", () => {
    it("is written with the entries before it, and handed to whoever goes on", async () => {
      const store = await stores.open(QUICK);
      const lease = await beginNew(store);
      await store.append(lease, entries(2n, 3n), [line(1, 1, 3n), line(2, 1, 3n)]);
      await store.append(lease, [], [line(3, 2, 3n)]);
      await store.append(lease, entries(4n, 4n));
      await store.append(lease, entries(5n, 5n), [line(4, 2, 5n)]);
      const claimed = await untilClaimed(store);
      expect(claimed.steps).toEqual([line(1, 1, 3n), line(2, 1, 3n), line(3, 2, 3n), line(4, 2, 5n)]);
      expect(claimed.lastSequence).toBe(5n);
    });

    it("does not change when a write whose answer was lost is repeated", async () => {
      const store = await stores.open(QUICK);
      const lease = await beginNew(store);
      const writes = [
        () => store.append(lease, entries(2n, 3n), [line(1, 1, 3n), line(2, 1, 3n)]),
        () => store.append(lease, [], [line(3, 2, 3n)]),
        () => store.append(lease, entries(4n, 4n), [line(4, 2, 4n)]),
      ];
      for (const write of writes) {
        await write();
        await write();
      }
      // What was under way when a later write was already there.
      for (const write of writes) await write();
      const claimed = await untilClaimed(store);
      expect(claimed.steps).toEqual([line(1, 1, 3n), line(2, 1, 3n), line(3, 2, 3n), line(4, 2, 4n)]);
      expect(claimed.lastSequence).toBe(4n);
      expect(await store.readLog(lease, 1n, 9)).toEqual(entries(2n, 4n));
    });

    it("is not written where its entries are refused", async () => {
      const store = await stores.open(QUICK);
      const lease = await beginNew(store);
      await expectFailure(store.append(lease, entries(3n, 3n), [line(1, 1, 3n)]), "INTERNAL");
      await expectFailure(store.append({ ...lease, nonce: "stale" }, entries(2n, 2n), [line(1, 1, 2n)]), "LEASE_LOST");
      await expectFailure(store.append({ ...lease, nonce: "stale" }, [], [line(1, 1, 1n)]), "LEASE_LOST");
      const claimed = await untilClaimed(store);
      expect(claimed).toMatchObject({ steps: [], lastSequence: 1n });
    });

    it("is no part of the log, and gone after the commit", async () => {
      const { store } = stores;
      const lease = await beginNew(store);
      await store.append(lease, entries(2n, 2n), [line(1, 1, 2n)]);
      await store.commitTurn(lease, commit(3n));
      expect(await store.readLog(lease, 0n, 9)).toHaveLength(3);
      // The log knows the turn no more as a running one, whoever asks.
      await expectFailure(store.append(lease, [], [line(2, 1, 3n)]), "LEASE_LOST");
      expect(await store.claimTurns(10)).toEqual([]);
    });
  });
}
