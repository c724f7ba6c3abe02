import fc from "fast-check";
import { expect, test } from "vitest";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { Failure, type FailureReason } from "../../src/failure.ts";
import { createMemoryStore } from "../../src/store/memory-store.ts";
import { type Lease, type NewTurn, QUEUE_TICKET_MS, type StopReason, type Store } from "../../src/turns/ports.ts";
import { commit, entries, newTurn } from "./store-contract.ts";
import { line, SESSION } from "./turns-contract.ts";

// One session, by a random schedule of callers, owners, claimers, pauses and repetitions, against a model of what must hold.

const LEASE_MS = 1_000;
const MAX_QUEUE = 3;
const STOPS = { interrupt: FinishReason.INTERRUPTED, rollback: FinishReason.ROLLED_BACK } as const;

interface ModelTurn {
  last: bigint;
  lines: number;
  stop: StopReason | undefined;
  finished: FinishReason | undefined;
  committedBy: Lease | undefined;
}

/** What must hold. */
interface Model {
  readonly turns: Map<string, ModelTurn>;
  /** All leases that were ever given, oldest first; only the newest of a turn that runs is good for anything. */
  readonly leases: Lease[];
  held: { readonly lease: Lease; untilMs: number } | undefined;
  queue: { readonly turnId: string; untilMs: number }[];
  /** Who committed, in order: the history. */
  readonly commits: string[];
}

/** The store, its clock, and the turns that callers ask for. */
interface Real {
  readonly store: Store;
  readonly clock: { ms: number };
  readonly turns: readonly NewTurn[];
}

type Command = fc.AsyncCommand<Model, Real>;

function command(name: string, run: (model: Model, real: Real) => Promise<void>): Command {
  return {
    check: () => true,
    toString: () => name,
    async run(model, real) {
      await run(model, real);
      await expectSame(model, real);
    },
  };
}

/** What can be read is what the model says. */
async function expectSame(model: Model, { store, turns }: Real): Promise<void> {
  for (const turn of turns) {
    const known = model.turns.get(turn.turnId);
    const [read, log] = [await store.getTurn(turn), await store.readLog(turn, 0n, 1_000)];
    expect(read?.lastSequence).toBe(known?.last);
    expect(read?.finishReason ?? 0).toBe(known?.finished ?? 0);
    expect(log?.map(({ event }) => event?.sequence)).toEqual(
      known && Array.from({ length: Number(known.last) }, (_, index) => BigInt(index + 1)),
    );
  }
  const messages = await store.listMessages(SESSION, { offset: 0, limit: 1_000 });
  expect(messages?.map(({ content }) => content)).toEqual(model.commits);
  expect([...model.turns.values()].filter(({ finished }) => finished === undefined).length).toBeLessThanOrEqual(1);
}

async function outcomeOf<T>(promise: Promise<T>): Promise<T | FailureReason> {
  return await promise.catch((error: unknown) => {
    if (error instanceof Failure) return error.reason;
    throw error;
  });
}

/** A lease is given: it is higher than all before it. */
function give(model: Model, lease: Lease, nowMs: number): void {
  expect(lease.epoch).toBeGreaterThan(model.leases.at(-1)?.epoch ?? 0);
  model.leases.push(lease);
  model.held = { lease, untilMs: nowMs + LEASE_MS };
}

function pick(model: Model, index: number): { lease: Lease; turn: ModelTurn; isGood: boolean } | undefined {
  const lease = model.leases.at(-1 - (index % Math.max(1, model.leases.length)));
  const turn = lease && model.turns.get(lease.turnId);
  return lease && turn && { lease, turn, isGood: model.held?.lease === lease };
}

const begin = (index: number, onBusy: NewTurn["onBusy"]) =>
  command(`begin ${index} ${onBusy}`, async (model, { store, clock, turns }) => {
    const turn = turns[index] ?? expect.unreachable();
    const outcome = await outcomeOf(store.beginTurn({ ...turn, onBusy }));
    const { held } = model;
    if (held?.lease.turnId === turn.turnId && held.lease.nonce === turn.nonce) {
      expect(outcome).toMatchObject({ state: "begun", lease: held.lease });
      held.untilMs = clock.ms + LEASE_MS;
      return;
    }
    if (model.turns.has(turn.turnId)) return expect(outcome).toEqual({ state: "exists" });

    model.queue = model.queue.filter(({ untilMs }) => untilMs > clock.ms);
    const own = model.queue.find(({ turnId }) => turnId === turn.turnId);
    if (own) own.untilMs = clock.ms + QUEUE_TICKET_MS;
    if (held === undefined && (model.queue.length === 0 || model.queue[0] === own)) {
      model.queue = model.queue.filter((place) => place !== own);
      model.turns.set(turn.turnId, {
        last: 1n,
        lines: 0,
        stop: undefined,
        finished: undefined,
        committedBy: undefined,
      });
      if (typeof outcome !== "object" || outcome.state !== "begun") return expect.fail(JSON.stringify(outcome));
      return give(model, outcome.lease, clock.ms);
    }
    if (onBusy === "reject") {
      model.queue = model.queue.filter((place) => place !== own);
      return expect(outcome).toBe("SESSION_BUSY");
    }
    const running = held && (model.turns.get(held.lease.turnId) ?? expect.unreachable());
    const ends = onBusy === "enqueue" ? undefined : STOPS[onBusy];
    let preempts = held !== undefined && held.lease.nonce === turn.nonce;
    if (own === undefined) {
      if (model.queue.length >= MAX_QUEUE) return expect(outcome).toBe("SESSION_QUEUE_FULL");
      const place = { turnId: turn.turnId, untilMs: clock.ms + QUEUE_TICKET_MS };
      model.queue = ends === undefined ? [...model.queue, place] : [place, ...model.queue];
      if (ends !== undefined && running !== undefined && running.stop === undefined) {
        running.stop = ends;
        preempts = true;
      }
    }
    if (preempts && running !== undefined) {
      if (typeof outcome !== "object" || outcome.state !== "preempted") return expect.fail(JSON.stringify(outcome));
      expect(outcome.running).toMatchObject({ stop: running.stop, lastSequence: running.last });
      expect(outcome.running.steps).toHaveLength(running.lines);
      return give(model, outcome.running.lease, clock.ms);
    }
    const position = model.queue.findIndex(({ turnId }) => turnId === turn.turnId) + (held === undefined ? 0 : 1);
    expect(outcome).toEqual({ state: "queued", position });
  });

const append = (index: number, size: number, lines: number, repeats: boolean) =>
  command(`append ${index} ${size} ${lines}${repeats ? " again" : ""}`, async (model, { store, clock }) => {
    const picked = pick(model, index);
    if (picked === undefined) return;
    const { lease, turn, isGood } = picked;
    const last = turn.last + BigInt(size);
    const steps = Array.from({ length: lines }, (_, at) => line(turn.lines + at + 1, 1, last));
    const news = size === 0 ? [] : entries(turn.last + 1n, last);
    const write = () => outcomeOf(store.append(lease, news, steps));
    const stops = turn.stop !== undefined && size + lines > 0;
    const expected = !isGood ? "LEASE_LOST" : stops ? turn.stop : undefined;
    expect(await write()).toBe(expected);
    if (expected === undefined) {
      turn.last = last;
      turn.lines += lines;
      if (model.held) model.held.untilMs = clock.ms + LEASE_MS;
    }
    if (repeats) expect(await write()).toBe(expected);
  });

const commitTurn = (index: number, repeats: boolean) =>
  command(`commit ${index}${repeats ? " again" : ""}`, async (model, { store }) => {
    const picked = pick(model, index);
    if (picked === undefined) return;
    const { lease, turn, isGood } = picked;
    const finishReason = turn.stop ?? FinishReason.STOP;
    const end = { ...commit(turn.last + 1n, { texts: [lease.turnId] }), finishReason };
    const write = () => outcomeOf(store.commitTurn(lease, end));
    const outcome = await write();
    if (isGood) {
      expect(outcome).toBeUndefined();
      turn.last += 1n;
      turn.finished = finishReason;
      turn.committedBy = lease;
      model.commits.push(lease.turnId);
      model.held = undefined;
    } else {
      // Whoever has committed may say it once more; nobody else may, and nothing changes.
      expect(outcome).toBe(turn.committedBy === lease ? undefined : "LEASE_LOST");
    }
    if (repeats) expect(await write()).toBe(outcome);
  });

const renew = (index: number) =>
  command(`renew ${index}`, async (model, { store, clock }) => {
    const picked = pick(model, index);
    if (picked === undefined) return;
    const outcome = await outcomeOf(store.renewLease(picked.lease));
    expect(outcome).toBe(picked.isGood ? picked.turn.stop : "LEASE_LOST");
    if (picked.isGood && model.held) model.held.untilMs = clock.ms + LEASE_MS;
  });

const release = (index: number) =>
  command(`release ${index}`, async (model, { store }) => {
    const picked = pick(model, index);
    if (picked === undefined) return;
    expect(await outcomeOf(store.releaseLease(picked.lease))).toBe(picked.isGood ? undefined : "LEASE_LOST");
    if (picked.isGood && model.held) model.held.untilMs = 0;
  });

const stop = (index: number, reason: StopReason) =>
  command(`stop ${index} ${reason}`, async (model, { store, turns }) => {
    const turn = turns[index] ?? expect.unreachable();
    const known = model.turns.get(turn.turnId);
    const stopped = await store.stopTurn(turn, reason);
    expect(stopped?.lastSequence).toBe(known?.last);
    if (known !== undefined && known.finished === undefined) known.stop ??= reason;
  });

const claim = () =>
  command("claim", async (model, { store, clock }) => {
    const claims = await store.claimTurns(5);
    const { held } = model;
    if (held === undefined || held.untilMs > clock.ms) return expect(claims).toEqual([]);
    const running = model.turns.get(held.lease.turnId) ?? expect.unreachable();
    expect(claims).toMatchObject([
      { lease: { turnId: held.lease.turnId }, lastSequence: running.last, stop: running.stop },
    ]);
    expect(claims[0]?.steps).toHaveLength(running.lines);
    give(model, claims[0]?.lease ?? expect.unreachable(), clock.ms);
  });

const leave = (index: number) =>
  command(`leave ${index}`, async (model, { store, turns }) => {
    const turn = turns[index] ?? expect.unreachable();
    await store.leaveQueue(turn);
    model.queue = model.queue.filter(({ turnId }) => turnId !== turn.turnId);
  });

const step = (ms: number) =>
  command(`${ms} ms`, async (_, { clock }) => {
    clock.ms += ms;
  });

test("whatever happens in whatever order: one writer, one order, nothing lost, nothing twice", async () => {
  const turn = fc.nat(7);
  const lease = fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(6) });
  const commands = fc.commands(
    [
      fc
        .tuple(turn, fc.constantFrom("enqueue" as const, "reject" as const, "interrupt" as const, "rollback" as const))
        .map((args) => begin(...args)),
      fc.tuple(lease, fc.nat(3), fc.nat(2), fc.boolean()).map((args) => append(...args)),
      fc.tuple(lease, fc.boolean()).map((args) => commitTurn(...args)),
      lease.map(renew),
      lease.map(release),
      fc
        .tuple(turn, fc.constantFrom(FinishReason.CANCELLED as const, FinishReason.DEADLINE as const))
        .map((args) => stop(...args)),
      fc.constant(claim()),
      turn.map(leave),
      fc.constantFrom(1, 500, 999, 1_000, 5_000).map(step),
    ],
    { maxCommands: 60, size: "max" },
  );
  await fc.assert(
    fc.asyncProperty(commands, async (schedule) => {
      const setup = async () => {
        const clock = { ms: 1_000_000 };
        const store = createMemoryStore({ ttlMs: 3_600_000, leaseMs: LEASE_MS, now: () => clock.ms });
        await store.createSession({ ...SESSION, userId: "ann", version: "1" });
        const turns = Array.from({ length: 8 }, () => ({ ...newTurn(SESSION.sessionId), maxQueue: MAX_QUEUE }));
        const model: Model = { turns: new Map(), leases: [], held: undefined, queue: [], commits: [] };
        return { model, real: { store, clock, turns } };
      };
      await fc.asyncModelRun(setup, schedule);
    }),
    { numRuns: 200 },
  );
});
