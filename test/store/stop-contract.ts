import { describe, expect, it, vi } from "vitest";
import { FinishReason, TurnState } from "../../gen/parley/chat/v1/turn_pb.js";
import { newTurnRef } from "../../src/turns/turn-id.ts";
import { commit, entries, expectFailure } from "./store-contract.ts";
import { beginNew, line, QUICK, SESSION, type StoresUnderTest, untilClaimed, WAIT } from "./turns-contract.ts";

const { CANCELLED, DEADLINE, INTERRUPTED } = FinishReason;

/** Ends that somebody else than the owner asks for. */
export function describeStops(stores: StoresUnderTest): void {
  describe("a turn that is to be stopped", () => {
    it("runs on until its owner ends it, and the first reason counts", async () => {
      const { store } = stores;
      const lease = await beginNew(store);
      expect(await store.stopTurn(lease, CANCELLED)).toMatchObject({ state: TurnState.RUNNING, lastSequence: 1n });
      expect(await store.stopTurn(lease, DEADLINE)).toMatchObject({ state: TurnState.RUNNING });
      expect(await store.renewLease(lease)).toBe(CANCELLED);
    });

    it("takes no more entries or lines, and says why", async () => {
      const { store } = stores;
      const lease = await beginNew(store);
      await store.append(lease, entries(2n, 2n));
      await store.stopTurn(lease, INTERRUPTED);
      const heard = vi.fn();
      store.follow(lease, heard);
      expect(await store.append(lease, entries(3n, 4n), [line(1, 1, 4n)])).toBe(INTERRUPTED);
      expect(await store.append(lease, [], [line(1, 1, 2n)])).toBe(INTERRUPTED);
      expect(await store.append(lease, entries(2n, 3n))).toBe(INTERRUPTED);
      expect(await store.readLog(lease, 0n, 9)).toHaveLength(2);
      expect((await store.getTurn(lease))?.lastSequence).toBe(2n);
      expect(heard).not.toHaveBeenCalled();
    });

    it("acknowledges a write that was there before the stop and whose answer was lost", async () => {
      const { store } = stores;
      const lease = await beginNew(store);
      const writes = [
        () => store.append(lease, entries(2n, 4n), [line(1, 1, 4n)]),
        () => store.append(lease, [], [line(2, 1, 4n)]),
        () => store.append(lease, entries(5n, 5n)),
      ];
      for (const write of writes) await write();
      await store.stopTurn(lease, CANCELLED);
      for (const write of writes) expect(await write()).toBeUndefined();
      expect((await store.getTurn(lease))?.lastSequence).toBe(5n);
    });

    it("is committed with what it has, and only by its owner", async () => {
      const { store } = stores;
      const lease = await beginNew(store);
      await store.append(lease, entries(2n, 2n));
      await store.stopTurn(lease, CANCELLED);
      await expectFailure(store.commitTurn({ ...lease, nonce: "another" }, commit(3n)), "LEASE_LOST");
      await store.commitTurn(lease, { ...commit(3n, { texts: ["half"] }), finishReason: CANCELLED });
      expect(await store.getTurn(lease)).toMatchObject({ state: TurnState.FINISHED, finishReason: CANCELLED });
      expect(await store.getSession(lease)).toMatchObject({ messageCount: 1n });
    });

    it("that has ended stays as it ended", async () => {
      const { store } = stores;
      const lease = await beginNew(store);
      await store.commitTurn(lease, commit(2n));
      expect(await store.stopTurn(lease, CANCELLED)).toMatchObject({ finishReason: FinishReason.STOP });
    });

    it("that is not there cannot be stopped", async () => {
      expect(await stores.store.stopTurn(newTurnRef(SESSION), CANCELLED)).toBeUndefined();
      await beginNew(stores.store);
      expect(await stores.store.stopTurn(newTurnRef(SESSION), CANCELLED)).toBeUndefined();
    });

    it("is told to its owner, whoever asks for it", async () => {
      const { store } = stores;
      const other = await stores.join();
      const heard: string[] = [];
      const unlisten = store.onStop((turnId) => heard.push(turnId));
      const lease = await beginNew(store);
      // The first may come before the owner's ear is open.
      await vi.waitFor(async () => {
        await other.stopTurn(lease, CANCELLED);
        expect(heard).toContain(lease.turnId);
      }, WAIT);
      unlisten();
      const count = heard.length;
      await store.stopTurn(lease, CANCELLED);
      await other.stopTurn(lease, CANCELLED);
      expect(heard).toHaveLength(count);
      expect(new Set(heard)).toEqual(new Set([lease.turnId]));
    });

    it("is told to no process that does not own it", async () => {
      const { store } = stores;
      const other = await stores.join();
      if (other === store) return;
      const [ownEar, otherEar] = [vi.fn(), vi.fn()];
      store.onStop(ownEar);
      other.onStop(otherEar);
      const lease = await beginNew(store);
      await vi.waitFor(async () => {
        await other.stopTurn(lease, CANCELLED);
        expect(ownEar).toHaveBeenCalled();
      }, WAIT);
      expect(otherEar).not.toHaveBeenCalled();
    });

    it("and whose owner is lost is handed on with the reason", async () => {
      const store = await stores.open(QUICK);
      const lease = await beginNew(store);
      await store.stopTurn(lease, DEADLINE);
      const claimed = await untilClaimed(store);
      expect(claimed.stop).toBe(DEADLINE);
      expect(await store.renewLease(claimed.lease)).toBe(DEADLINE);
      await store.commitTurn(claimed.lease, { ...commit(2n), finishReason: DEADLINE });
    });
  });
}
