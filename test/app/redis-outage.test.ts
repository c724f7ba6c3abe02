import { Code } from "@connectrpc/connect";
import { describe, expect, test, vi } from "vitest";
import { expectRefusal, refusalOf } from "../rpc/refusals.ts";
import { threeWires } from "../rpc/wires.ts";
import { eventually } from "../support/eventually.ts";
import type { RedisServer } from "../support/redis-server.ts";
import { callerOf, expectInLog, spoken, turnIdOf } from "./clients.ts";
import { SLOW_REPLY, startParts } from "./parts.ts";

// Redis is away amid turns and comes back before their lease has run out: they go on as if nothing had been.

const outages: [string, { begin(redis: RedisServer): Promise<void>; end(redis: RedisServer): Promise<void> }][] = [
  ["is killed and started again", { begin: (redis) => redis.kill(), end: (redis) => redis.restart() }],
  ["stands still and goes on", { begin: async (redis) => redis.pause(true), end: async (redis) => redis.pause(false) }],
];

describe.each(outages)("a Redis that %s", (_, outage) => {
  test("makes no gap in turns, and calls meanwhile are refused with the advice to try again", async () => {
    const { redis, startService, logOf } = await startParts();
    const service = await startService({ LEASE_MS: "30000" });
    const running = await Promise.all(
      threeWires.map(async (wire) => {
        const caller = callerOf(service, wire);
        const sessionId = await caller.createSession();
        return { caller, sessionId, reading: caller.stream(sessionId, "go on", "slow") };
      }),
    );
    for (const { reading } of running) await spoken(reading);

    await outage.begin(redis);
    for (const { caller, sessionId } of running) {
      const refusal = await refusalOf(caller.sessions.getSession({ sessionId }, { timeoutMs: 10_000 }));
      expectRefusal(refusal, { code: Code.Unavailable, reason: "STORE_UNAVAILABLE" });
    }
    await vi.waitFor(async () => expect((await service.readiness()).status).toBe(503), { timeout: 10_000 });
    // The model has long said all; what it said waits for Redis.
    for (const { reading } of running) expect(reading.text()).not.toBe(SLOW_REPLY);
    await outage.end(redis);

    for (const { caller, sessionId, reading } of running) {
      expect(await reading.end).toBeUndefined();
      expect(reading.text()).toBe(SLOW_REPLY);
      const log = await logOf(turnIdOf(reading));
      expectInLog(reading, log);
      expect(reading.events).toHaveLength(log.length);
      await eventually(async () => expect(await caller.history(sessionId)).toEqual(["go on", SLOW_REPLY]));
    }
    await vi.waitFor(async () => expect((await service.readiness()).status).toBe(200), { timeout: 10_000 });
  });
});
