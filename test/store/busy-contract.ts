import { describe, expect, it } from "vitest";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { ClaimedTurn, Lease, NewTurn, Store } from "../../src/turns/ports.ts";
import { begin, commit, entries, expectFailure, newTurn } from "./store-contract.ts";
import { beginNew, line, type StoresUnderTest } from "./turns-contract.ts";

const wanting = (onBusy: NewTurn["onBusy"]): NewTurn => ({ ...newTurn("s1"), onBusy });

async function preempt(store: Store, turn: NewTurn): Promise<ClaimedTurn> {
  const outcome = await store.beginTurn(turn);
  return outcome.state === "preempted" ? outcome.running : expect.fail(`the turn is ${outcome.state}`);
}

/** What becomes of a turn that comes while another one runs. */
export function describeBusySessions(stores: StoresUnderTest): void {
  const endBy = (lease: Lease, sequence: bigint): Promise<void> => stores.store.commitTurn(lease, commit(sequence));

  describe("a turn that is to be refused by a busy session", () => {
    it("is told of the running turn, and leaves no trace", async () => {
      const { store } = stores;
      const lease = await beginNew(store);
      await store.append(lease, entries(2n, 4n));
      const refused = wanting("reject");
      const failure = await expectFailure(store.beginTurn(refused), "SESSION_BUSY");
      expect(failure.facts.cursor).toEqual({ turnId: lease.turnId, lastSequence: 4n });
      expect(await store.getTurn(refused)).toBeUndefined();
      expect(await store.beginTurn(newTurn("s1"))).toMatchObject({ state: "queued", position: 1 });
    });

    it("is refused too while others wait, though none runs", async () => {
      const { store } = stores;
      const lease = await beginNew(store);
      const waiting = newTurn("s1");
      await store.beginTurn(waiting);
      await endBy(lease, 2n);
      const failure = await expectFailure(store.beginTurn(wanting("reject")), "SESSION_BUSY");
      expect(failure.facts.cursor).toBeUndefined();
      await begin(store, waiting);
    });

    it("begins where nothing runs or waits, and repeats its begin", async () => {
      const { store } = stores;
      await endBy(await beginNew(store), 2n);
      const turn = wanting("reject");
      const { lease } = await begin(store, turn);
      expect((await begin(store, turn)).lease).toEqual(lease);
    });
  });

  describe.each([
    ["interrupt", FinishReason.INTERRUPTED],
    ["rollback", FinishReason.ROLLED_BACK],
  ] as const)("a turn that comes to %s", (onBusy, reason) => {
    it("takes the running turn from its owner, to end it, and then begins", async () => {
      const { store } = stores;
      const lease = await beginNew(store);
      await store.append(lease, entries(2n, 3n), [line(1, 1, 3n)]);
      const turn = wanting(onBusy);
      const running = await preempt(store, turn);
      expect(running).toMatchObject({ lastSequence: 3n, stop: reason, takeovers: 1, steps: [line(1, 1, 3n)] });
      expect(running.lease).toMatchObject({ turnId: lease.turnId });
      expect(running.lease.epoch).toBeGreaterThan(lease.epoch);
      await expectFailure(store.append(lease, entries(4n, 4n)), "LEASE_LOST");
      await expectFailure(store.commitTurn(lease, commit(4n)), "LEASE_LOST");
      await endBy(running.lease, 4n);
      await begin(store, turn);
    });

    it("gets the running turn once more when the answer was lost, or its end could not be written", async () => {
      const { store } = stores;
      await beginNew(store);
      const turn = wanting(onBusy);
      const first = await preempt(store, turn);
      const again = await preempt(store, turn);
      expect(again).toMatchObject({ stop: reason, lastSequence: 1n });
      await expectFailure(store.append(first.lease, entries(2n, 2n)), "LEASE_LOST");
      await endBy(again.lease, 2n);
      await begin(store, turn);
    });

    it("goes to the head of the queue, and ends no turn that waits", async () => {
      const { store } = stores;
      await beginNew(store);
      const waiting = [newTurn("s1"), newTurn("s1")];
      for (const one of waiting) await store.beginTurn(one);
      const turn = wanting(onBusy);
      const running = await preempt(store, turn);
      await endBy(running.lease, 2n);
      expect(await store.beginTurn(waiting[0] ?? turn)).toEqual({ state: "queued", position: 1 });
      let { lease } = await begin(store, turn);
      for (const one of waiting) {
        await endBy(lease, 2n);
        ({ lease } = await begin(store, one));
      }
    });

    it("does not end a turn that another one ends already; both run, the newer first", async () => {
      const { store } = stores;
      await beginNew(store);
      const [first, second] = [wanting(onBusy), wanting("interrupt")];
      const running = await preempt(store, first);
      expect(await store.beginTurn(second)).toEqual({ state: "queued", position: 1 });
      expect((await store.renewLease(running.lease)) ?? running.stop).toBe(reason);
      await endBy(running.lease, 2n);
      expect((await store.beginTurn(first)).state).toBe("queued");
      const { lease } = await begin(store, second);
      // It ended the turn that ran when it came, and no other.
      expect(await store.beginTurn(first)).toEqual({ state: "queued", position: 1 });
      expect(await store.append(lease, entries(2n, 2n))).toBeUndefined();
      await endBy(lease, 3n);
      await begin(store, first);
    });

    it("waits where the running turn was told to stop before, and that reason counts", async () => {
      const { store } = stores;
      const lease = await beginNew(store);
      await store.stopTurn(lease, FinishReason.CANCELLED);
      const turn = wanting(onBusy);
      expect(await store.beginTurn(turn)).toEqual({ state: "queued", position: 1 });
      expect(await store.renewLease(lease)).toBe(FinishReason.CANCELLED);
      await endBy(lease, 2n);
      await begin(store, turn);
    });

    it("is refused by a full queue, and ends nothing", async () => {
      const { store } = stores;
      const lease = await beginNew(store);
      for (let place = 0; place < 16; place++) await store.beginTurn(newTurn("s1"));
      await expectFailure(store.beginTurn(wanting(onBusy)), "SESSION_QUEUE_FULL");
      expect(await store.renewLease(lease)).toBeUndefined();
      await store.append(lease, entries(2n, 2n));
    });

    it("begins at once where nothing runs", async () => {
      await endBy(await beginNew(stores.store), 2n);
      await begin(stores.store, wanting(onBusy));
    });
  });

  describe("a turn that two calls ask for", () => {
    it("begins once: the other call is told that it exists, busy or not, ended or not", async () => {
      const { store } = stores;
      await endBy(await beginNew(store), 2n);
      const turn = newTurn("s1");
      const twin = { ...turn, nonce: "twin" };
      const { lease } = await begin(store, turn);
      for (const onBusy of ["enqueue", "reject", "interrupt", "rollback"] as const) {
        expect(await store.beginTurn({ ...twin, onBusy })).toEqual({ state: "exists" });
      }
      expect(await store.renewLease(lease)).toBeUndefined();
      await endBy(lease, 2n);
      expect(await store.beginTurn(twin)).toEqual({ state: "exists" });
      expect(await store.beginTurn(turn)).toEqual({ state: "exists" });
    });

    it("has one place in the queue, and whoever comes first at its head begins it", async () => {
      const { store } = stores;
      const lease = await beginNew(store);
      const turn = newTurn("s1");
      const twin = { ...turn, nonce: "twin" };
      expect(await store.beginTurn(turn)).toEqual({ state: "queued", position: 1 });
      expect(await store.beginTurn(twin)).toEqual({ state: "queued", position: 1 });
      await endBy(lease, 2n);
      await begin(store, twin);
      expect(await store.beginTurn(turn)).toEqual({ state: "exists" });
    });
  });
}
