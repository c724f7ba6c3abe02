import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { FinishReason, TurnState } from "../../gen/parley/chat/v1/turn_pb.js";
import { connectRedis } from "../../src/store/redis-connection.ts";
import { createRedisStore } from "../../src/store/redis-store.ts";
import { expectRefusal } from "../rpc/refusals.ts";
import { eventually } from "../support/eventually.ts";
import type { ServiceProcess } from "../support/service-process.ts";
import {
  bytesOf,
  callerOf,
  casesOf,
  errorOf,
  expectInLog,
  expectWhole,
  finishOf,
  type Reading,
  spoken,
  turnIdOf,
} from "./clients.ts";
import { SLOW_REPLY, shareParts } from "./parts.ts";

// The owner of a turn is killed, or stands still for longer than its lease.

const parts = shareParts();
const LEASE_MS = 1_000;
const env = { LEASE_MS: String(LEASE_MS) };
/** A turn that lost its owner stands still this long at most (DESIGN §4), in milliseconds. */
const STANDS_STILL_MS = LEASE_MS + 2_000;

let survivor: ServiceProcess;

beforeAll(async () => {
  survivor = await parts().startReplica(env);
});

/** A process that is gone when its test has ended, so that it takes over nothing of the next one. */
async function startReplica(more: Readonly<Record<string, string>> = {}): Promise<ServiceProcess> {
  const service = await parts().startReplica({ ...env, ...more });
  onTestFinished(() => service.kill());
  return service;
}

/** When a process took a turn over, in milliseconds since the epoch; undefined: it did not. */
function takenOverMs(service: ServiceProcess, turnId: string): number | undefined {
  const [line] = service.logged({ msg: "turn taken over from a lost owner", turn_id: turnId });
  return line && Date.parse(String(line.time));
}

test("many turns of a killed process go on within a lease and two seconds, nobody asking", async () => {
  const { logOf } = parts();
  const owner = await startReplica();
  const caller = callerOf(owner);
  const calledMs = Date.now();
  const cut = Array.from({ length: 100 }, () => caller.stream("", "say nothing", "silent"));
  for (const reading of cut) await eventually(() => expect(reading.events).not.toEqual([]));
  // On a machine that is busy with other things, to take so many turns over takes as long as to begin them.
  const busyMs = Date.now() - calledMs;
  const speaking = caller.stream("", "go on", "slow");
  await spoken(speaking);
  const killedMs = Date.now();
  await owner.kill();

  const turns = [speaking, ...cut].map(turnIdOf);
  for (const turnId of turns) await eventually(() => expect(takenOverMs(survivor, turnId)).toBeGreaterThan(0));
  const stoodStill = turns.map((turnId) => (takenOverMs(survivor, turnId) ?? 0) - killedMs);
  expect(Math.max(...stoodStill)).toBeLessThan(STANDS_STILL_MS + busyMs);
  expect(Math.min(...stoodStill)).toBeGreaterThan(0);

  // The one that speaks has nothing but its text said again.
  const other = callerOf(survivor);
  const [turnId = ""] = turns;
  await eventually(async () => expect((await other.chat.getTurn({ turnId })).turn?.state).toBe(TurnState.FINISHED));
  const whole = other.resume(turnId);
  expect(await whole.end).toBeUndefined();
  expect(expectWhole(whole.events)).toEqual([SLOW_REPLY]);
  expectInLog(speaking, await logOf(turnId));
  const restart = ["textDelta", "stepRestarted", "usageRecorded", "textDelta"];
  expect(casesOf(whole.events).slice(2, -3)).toEqual(restart);
  await Promise.all(turns.slice(1).map((silent) => other.chat.cancelTurn({ turnId: silent })));
});

describe("a process that stood still for longer than its lease and goes on", () => {
  test("has every write refused, there is one lineage, and its readers read on to the end", async () => {
    const { logOf } = parts();
    const stopped = await startReplica();
    const [a, b] = [callerOf(stopped), callerOf(survivor)];
    const sessionId = await a.createSession();
    const first = a.stream(sessionId, "tell me all", "slow");
    await spoken(first);
    const turnId = turnIdOf(first);
    const resumed = a.resume(turnId);
    await spoken(resumed);
    stopped.send("SIGSTOP");
    await eventually(() => expect(takenOverMs(survivor, turnId)).toBeGreaterThan(0));
    const elsewhere = b.resume(turnId);
    await eventually(() => expect(elsewhere.events.length).toBeGreaterThan(first.events.length + 5));
    // The new owner is amid its work while the old one wakes up.
    stopped.send("SIGCONT");

    const readings = [first, resumed, elsewhere];
    expect(await Promise.all(readings.map(({ end }) => end))).toEqual([undefined, undefined, undefined]);
    for (const reading of readings) {
      expect(expectWhole(reading.events)).toEqual([SLOW_REPLY]);
      expect(reading.events.map(bytesOf)).toEqual(elsewhere.events.map(bytesOf));
    }
    expectInLog(first, await logOf(turnId));
    const refused = stopped.logged({ msg: "write refused", reason: "LEASE_LOST" });
    expect(refused.length).toBeGreaterThan(0);
    expect(stopped.logged({ msg: "turn goes on elsewhere", turn_id: turnId })).toHaveLength(1);
    expect(stopped.logged({ level: "error" })).toEqual([]);
    expect(await a.history(sessionId)).toEqual(["tell me all", SLOW_REPLY]);
    expect(await a.say(sessionId, "and?")).toContain("tell me all");
  });

  test("changes nothing of a turn that has ended meanwhile, nor of the session's next one", async () => {
    const { logOf } = parts();
    const stopped = await startReplica();
    const [a, b] = [callerOf(stopped), callerOf(survivor)];
    const sessionId = await a.createSession();
    const first = a.stream(sessionId, "pay now", "pay");
    await eventually(() => expect(first.events.length).toBeGreaterThan(3));
    const turnId = turnIdOf(first);
    stopped.send("SIGSTOP");
    await eventually(async () => expect((await b.chat.getTurn({ turnId })).turn?.state).toBe(TurnState.FINISHED));
    const next = b.stream(sessionId, "go on", "slow");
    await spoken(next);
    const log = await logOf(turnId);
    stopped.send("SIGCONT");

    expect(await first.end).toBeUndefined();
    expectWhole(first.events);
    expectInLog(first, log);
    expect(first.events).toHaveLength(log.length);
    expect(await next.end).toBeUndefined();
    expect(expectWhole(next.events)).toEqual([SLOW_REPLY]);
    expect(await logOf(turnId)).toEqual(log);
    expect(await b.history(sessionId)).toHaveLength(6);
    expect((await parts().toolCalls()).filter((line) => line.includes(turnId)).length).toBeLessThanOrEqual(1);
  });

  test("gets its turn back when the next owner stands still too, and none of them writes what is another's", async () => {
    const { logOf } = parts();
    const [own, two] = await Promise.all([startReplica(), startReplica()]);
    survivor.send("SIGSTOP");
    try {
      const [a, b] = [callerOf(own), callerOf(two)];
      const first = a.stream("", "tell me more", "endless");
      await spoken(first);
      const turnId = turnIdOf(first);
      const last = b.resume(turnId);
      for (const [owner, next] of [
        [own, two],
        [two, own],
        [own, two],
      ] as const) {
        const before = next.logged({ msg: "turn taken over from a lost owner", turn_id: turnId }).length;
        owner.send("SIGSTOP");
        await eventually(() => {
          const taken = next.logged({ msg: "turn taken over from a lost owner", turn_id: turnId });
          expect(taken).toHaveLength(before + 1);
        });
        owner.send("SIGCONT");
        await eventually(() =>
          expect(owner.logged({ msg: "turn goes on elsewhere", turn_id: turnId })).not.toEqual([]),
        );
      }
      // A turn that is cancelled before its owner has called the model is none that a call could outlive.
      const calls = () =>
        parts().model.calls.filter(({ messages }) => messages.some(({ content }) => content === "tell me more"));
      await eventually(() => expect(calls()).toHaveLength(4));
      await b.chat.cancelTurn({ turnId });
      const readings: Reading[] = [first, last];
      for (const reading of readings) {
        await errorOf(reading);
        expectWhole(reading.events);
        expect(finishOf(reading.events)).toBe(FinishReason.CANCELLED);
        expect(reading.events).toHaveLength((await logOf(turnId)).length);
      }
      expect(first.events.filter(({ event }) => event.case === "stepRestarted")).toHaveLength(3);
      expect(first.events.map(bytesOf)).toEqual(last.events.map(bytesOf));
      // No call goes on whose turn is another's.
      await eventually(() => expect(calls().map(({ state }) => state)).toEqual(Array(4).fill("closed_by_client")));
    } finally {
      survivor.send("SIGCONT");
    }
  });
});

test("a turn that kills its owners again and again ends with TURN_LOST, and its session goes on", async () => {
  const { toolCalls } = parts();
  // One that dies of nothing must not get it before its time.
  survivor.send("SIGSTOP");
  const owners = await Promise.all(Array.from({ length: 6 }, () => startReplica({ LEASE_MS: "300" })));
  const [first] = owners as [ServiceProcess];
  const cut = callerOf(first).stream("", "look it up", "look_up_and_die");
  await errorOf(cut);
  for (const owner of owners) await owner.ended;
  survivor.send("SIGCONT");
  const turnId = turnIdOf(cut);
  const caller = callerOf(survivor);
  await eventually(async () => expect((await caller.chat.getTurn({ turnId })).turn?.state).toBe(TurnState.FINISHED));
  const whole = caller.resume(turnId);
  expectRefusal(await errorOf(whole), { code: 10, reason: "TURN_LOST" });
  expectWhole(whole.events);
  expect(finishOf(whole.events)).toBe(FinishReason.ERROR);
  expect(await toolCalls().then((calls) => calls.filter((line) => line.includes(turnId)))).toHaveLength(6);
  const sessionId = (await caller.chat.getTurn({ turnId })).turn?.sessionId ?? "";
  expect(await caller.say(sessionId, "are you well?")).toContain("are you well?");
});

test("a turn that is handed over again and again ends well: that is no sign that its owners die of it", async () => {
  const leaving = await startReplica({ DRAIN_MS: "0" });
  const running = callerOf(leaving).stream("", "hand me over", "slow");
  await spoken(running);
  const turnId = turnIdOf(running);
  survivor.send("SIGSTOP");
  leaving.send("SIGTERM");
  await leaving.ended;
  const store = createRedisStore({ connection: connectRedis(parts().redis.url), ttlMs: 3_600_000, leaseMs: 10_000 });
  onTestFinished(() => store.close());
  for (let handovers = 1; handovers < 10; handovers++) {
    const [claimed] = await store.claimTurns(32);
    expect(claimed).toMatchObject({ lease: { turnId }, takeovers: 0 });
    if (claimed !== undefined) await store.releaseLease(claimed.lease);
  }
  survivor.send("SIGCONT");
  const whole = callerOf(survivor).resume(turnId);
  expect(await whole.end).toBeUndefined();
  expect(expectWhole(whole.events)).toEqual([SLOW_REPLY]);
});
