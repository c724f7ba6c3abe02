import { describe, expect, it, vi } from "vitest";
import { TurnState } from "../../gen/parley/chat/v1/turn_pb.js";
import type { ClaimedTurn, Store } from "../../src/turns/ports.ts";
import { begin, beginAndCommit, commit, entries, expectFailure, newTurn, usageEntry } from "./store-contract.ts";
import { beginNew, line, QUICK, SESSION, type StoresUnderTest, untilClaimed, WAIT } from "./turns-contract.ts";

/** Turns whose owners are lost. */
export function describeClaims(stores: StoresUnderTest): void {
  describe("an abandoned turn", () => {
    it("is handed to one claimer with all that it needs, under a higher epoch", async () => {
      const store = await stores.open(QUICK);
      await store.createSession({ ...SESSION, userId: "ann", version: "1" });
      for (const text of ["one", "two", "three"]) await beginAndCommit(store, "s1", [text]);
      const turn = { ...newTurn("s1"), windowMessages: 2 };
      const { lease, window } = await begin(store, turn);
      await store.append(lease, [usageEntry(2n, 10, 5, 7n), ...entries(3n, 4n)], [line(1, 1, 4n)]);
      const claimed = await untilClaimed(store);
      expect(claimed).toEqual({
        lease: { ...lease, epoch: claimed.lease.epoch, nonce: claimed.lease.nonce },
        record: turn.record,
        window,
        steps: [line(1, 1, 4n)],
        lastSequence: 4n,
        usage: { promptTokens: 10, completionTokens: 5, costMicroUsd: 7n },
        stop: undefined,
        takeovers: 1,
      });
      expect(claimed.lease.epoch).toBeGreaterThan(lease.epoch);
      expect(claimed.lease.nonce).not.toBe(lease.nonce);
      expect(window).toHaveLength(2);
    });

    it("is no longer its old owner's: each of that one's writes is refused", async () => {
      const store = await stores.open(QUICK);
      const lease = await beginNew(store);
      await store.append(lease, entries(2n, 2n));
      const { lease: taken } = await untilClaimed(store);
      await expectFailure(store.append(lease, entries(3n, 3n)), "LEASE_LOST");
      await expectFailure(store.append(lease, [], [line(1, 1, 2n)]), "LEASE_LOST");
      // Not even what it has written before.
      await expectFailure(store.append(lease, entries(2n, 2n)), "LEASE_LOST");
      await expectFailure(store.renewLease(lease), "LEASE_LOST");
      await expectFailure(store.releaseLease(lease), "LEASE_LOST");
      await expectFailure(store.commitTurn(lease, commit(3n, { texts: ["void"] })), "LEASE_LOST");
      await store.append(taken, entries(3n, 4n), [line(1, 1, 4n)]);
      await store.commitTurn(taken, commit(5n, { texts: ["kept"] }));
      await expectFailure(store.commitTurn(lease, commit(5n, { texts: ["void"] })), "LEASE_LOST");
      expect(await store.listMessages(lease, { offset: 0, limit: 9 })).toMatchObject([{ content: "kept" }]);
      expect(await store.getTurn(lease)).toMatchObject({ state: TurnState.FINISHED, lastSequence: 5n });
      expect((await store.readLog(lease, 0n, 9))?.map(({ event }) => event?.sequence)).toEqual([1n, 2n, 3n, 4n, 5n]);
    });

    it("is claimed once, however many look at once", async () => {
      const store = await stores.open(QUICK);
      const others = [await stores.join(QUICK), await stores.join(QUICK)];
      const sessionIds = Array.from({ length: 12 }, (_, index) => `s${index}`);
      for (const sessionId of sessionIds) await begin(store, { ...newTurn(sessionId), createSession: true });
      const claimed = new Map<string, ClaimedTurn[]>();
      // Who has claimed a turn shows it is alive.
      const hold = async (claims: ClaimedTurn[], by: Store): Promise<void> => {
        for (const one of claims) claimed.set(one.lease.sessionId, [...(claimed.get(one.lease.sessionId) ?? []), one]);
        await Promise.all(claims.map(({ lease }) => by.commitTurn(lease, commit(2n))));
      };
      await vi.waitFor(async () => {
        await Promise.all(
          [store, ...others, store].map(async (looking) => hold(await looking.claimTurns(10), looking)),
        );
        expect([...claimed.keys()].toSorted()).toEqual(sessionIds.toSorted());
      }, WAIT);
      for (const claims of claimed.values()) expect(claims).toHaveLength(1);
    });

    it("is claimed again when its claimer dies too, and never after its commit", async () => {
      const store = await stores.open(QUICK);
      const lease = await beginNew(store);
      const first = await untilClaimed(store);
      await store.append(first.lease, entries(2n, 2n), [line(1, 1, 2n)]);
      const second = await untilClaimed(store);
      expect(second).toMatchObject({ takeovers: 2, lastSequence: 2n, steps: [line(1, 1, 2n)] });
      expect(second.lease.epoch).toBeGreaterThan(first.lease.epoch);
      await expectFailure(store.append(first.lease, entries(3n, 3n)), "LEASE_LOST");
      await store.commitTurn(second.lease, commit(3n));
      const committedMs = Date.now();
      await vi.waitFor(async () => {
        expect(await store.claimTurns(10)).toEqual([]);
        expect(Date.now() - committedMs).toBeGreaterThan(3 * QUICK.leaseMs);
      }, WAIT);
      expect((await store.getTurn(lease))?.state).toBe(TurnState.FINISHED);
    });

    it("is not one whose owner shows signs of life", async () => {
      const store = await stores.open({ ...QUICK, leaseMs: 500 });
      const lease = await beginNew(store);
      const begunMs = Date.now();
      let sequence = 1n;
      await vi.waitFor(
        async () => {
          if (sequence % 2n === 0n) await store.renewLease(lease);
          await store.append(lease, entries(sequence + 1n, ++sequence));
          expect(await store.claimTurns(10)).toEqual([]);
          expect(Date.now() - begunMs).toBeGreaterThan(1_200);
        },
        { timeout: 10_000, interval: 30 },
      );
      // From the last sign of life on the time runs.
      expect((await untilClaimed(store)).lastSequence).toBe(sequence);
    });

    it("that nobody claims is its owner's still", async () => {
      const store = await stores.open(QUICK);
      const lease = await beginNew(store);
      const begunMs = Date.now();
      await vi.waitFor(() => expect(Date.now() - begunMs).toBeGreaterThan(2 * QUICK.leaseMs), WAIT);
      await store.append(lease, entries(2n, 2n));
      await store.commitTurn(lease, commit(3n));
    });

    it("is found at once when its owner gives it up", async () => {
      const { store } = stores;
      const lease = await beginNew(store);
      expect(await store.claimTurns(10)).toEqual([]);
      await store.releaseLease(lease);
      const [claimed] = await store.claimTurns(10);
      expect(claimed?.lease).toMatchObject({ turnId: lease.turnId });
      await expectFailure(store.releaseLease(lease), "LEASE_LOST");
      expect(await store.claimTurns(10)).toEqual([]);
    });

    it("keeps its session busy, and its session's other turns waiting", async () => {
      const store = await stores.open(QUICK);
      await beginNew(store);
      const waiting = newTurn("s1");
      const claimed = await vi.waitFor(async () => {
        expect(await store.beginTurn(waiting)).toMatchObject({ state: "queued", position: 1 });
        return untilClaimed(store);
      }, WAIT);
      expect((await store.beginTurn(waiting)).state).toBe("queued");
      await store.commitTurn(claimed.lease, commit(2n));
      await begin(store, waiting);
    });

    it("of a session that was deleted is none", async () => {
      const store = await stores.open(QUICK);
      const lease = await beginNew(store);
      await store.deleteSession(lease);
      const deletedMs = Date.now();
      await vi.waitFor(async () => {
        expect(await store.claimTurns(10)).toEqual([]);
        expect(Date.now() - deletedMs).toBeGreaterThan(2 * QUICK.leaseMs);
      }, WAIT);
    });

    it("is claimed with no more than asked for", async () => {
      const store = await stores.open(QUICK);
      for (const sessionId of ["a", "b", "c", "d", "e"])
        await begin(store, { ...newTurn(sessionId), createSession: true });
      const found: string[] = [];
      await vi.waitFor(async () => {
        const claims = await store.claimTurns(2);
        expect(claims.length).toBeLessThanOrEqual(2);
        found.push(...claims.map(({ lease }) => lease.sessionId));
        for (const { lease } of claims) await store.commitTurn(lease, commit(2n));
        expect(found.toSorted()).toEqual(["a", "b", "c", "d", "e"]);
      }, WAIT);
    });
  });
}
