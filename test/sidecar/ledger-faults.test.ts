import { Redis } from "ioredis";
import { Registry } from "prom-client";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { createCostMetrics } from "../../sidecar/cost-metrics.ts";
import { type LedgerConsumer, startLedgerConsumer } from "../../sidecar/ledger-consumer.ts";
import type { LedgerEntry, Rollups } from "../../sidecar/rollups.ts";
import { createRedisRollups } from "../../sidecar/rollups-redis.ts";
import { periodOf } from "../../src/accounts/budget-periods.ts";
import { createRedisAccountStore } from "../../src/accounts/redis-account-store.ts";
import { createLogger } from "../../src/platform/logger.ts";
import { connectRedis, type RedisConnection } from "../../src/store/redis-connection.ts";
import { call, settled } from "../accounts/calls.ts";
import { eventually } from "../support/eventually.ts";
import { startLyingClock } from "../support/lying-clock.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { repeated } from "../support/repeated.ts";
import { checkRollups, countedBy, rolledUp } from "./rollup-sums.ts";

// Whatever happens to deliveries, sidecars and Redis: rollups = ledger = spend counters, and each row is told of once.

const tenant = "acme";
const logger = createLogger({ level: "silent", version: "0", track: "stable" });
/** Long enough that a batch is done by then, short enough that a test waits for it. */
const CLAIM_AFTER_MS = 300;

let server: RedisServer;
beforeAll(async () => {
  server = await startRedisServer({ appendOnly: true });
});
afterAll(() => server.stop());

const connections: RedisConnection[] = [];
const consumers: LedgerConsumer[] = [];
/** Rows that some sidecar was told that it had applied, each as often as it was told. */
let told: string[] = [];
/** Where sidecars counted. */
const registries: Registry[] = [];

beforeEach(async () => {
  const redis = new Redis(server.url);
  await redis.flushall();
  redis.disconnect();
  told = [];
  registries.length = 0;
  return async () => {
    await Promise.all(consumers.splice(0).map((consumer) => consumer.stop()));
    await Promise.all(connections.splice(0).map((connection) => connection.close()));
  };
});

function connect(url = server.url) {
  const connection = connectRedis(url);
  connections.push(connection);
  return { connection, accounts: createRedisAccountStore({ connection }) };
}

function rollupsOf(consumer: string, url?: string): Rollups {
  return createRedisRollups({ ...connect(url), consumer, claimAfterMs: CLAIM_AFTER_MS });
}

function follow(rollups: Rollups): LedgerConsumer {
  const releases = new Registry();
  registries.push(releases);
  const metrics = createCostMetrics({ registry: new Registry(), releases, topUsers: 3 });
  const consumer = startLedgerConsumer({
    rollups,
    onApplied(of, { entries }) {
      told.push(...entries.map(({ row }) => row.recordId));
      metrics.applied(of, entries);
    },
    logger,
    batchRows: 20,
    pollMs: 10,
  });
  consumers.push(consumer);
  return consumer;
}

/** Calls of several users and models, some unpriced, some corrected; repeated until Redis has answered. */
async function spend(count: number, { from = 0, url }: { from?: number; url?: string } = {}): Promise<void> {
  const { accounts } = connect(url);
  for (let at = from; at < from + count; at += 10) {
    await Promise.all(
      Array.from({ length: Math.min(10, from + count - at) }, async (_, index) => {
        const n = at + index;
        const row = {
          userId: `u${n % 7}`,
          model: n % 3 === 0 ? "odd" : "gpt-4",
          costMicroUsd: BigInt(n),
          promptTokens: BigInt(n % 50),
          priceVersion: n % 3 === 0 ? "" : "v",
        };
        await repeated(() => accounts.hold(call(`c${n}`, row)));
        await repeated(() => accounts.settle(settled(`c${n}`, row)));
        if (n % 5 !== 0) return;
        await repeated(() =>
          accounts.correct(settled(`c${n}`, { ...row, costMicroUsd: BigInt(n + 3), priceVersion: "w" })),
        );
      }),
    );
  }
}

async function checkAll(): Promise<void> {
  const { accounts } = connect();
  const rollups = rollupsOf("checker");
  await vi.waitFor(async () => expect(await rollups.standing(tenant)).toEqual({ pending: 0, lagMs: 0 }), {
    timeout: 20_000,
    interval: 50,
  });
  const { rows } = await checkRollups(rollups, accounts, tenant);
  expect(rows).toBeGreaterThan(100);
  // A sidecar is told after the script, so that the last telling may be under way.
  await eventually(() => expect(told).toHaveLength(rows));
  expect(new Set(told).size).toBe(rows);
  await checkCounters(rollups, [periodOf("month", Date.now()).startMs]);
}

/** What all of them counted together is what the rollups of some months say, group by group. */
async function checkCounters(rollups: Rollups, monthsMs: readonly number[]): Promise<void> {
  const counted = countedBy(await Promise.all(registries.map((registry) => registry.metrics())), tenant);
  expect(counted.size).toBeGreaterThan(0);
  expect(counted).toEqual(await rolledUp(rollups, tenant, monthsMs));
}

/** Deliveries as a network at its worst would make them: some are lost, for now, the rest doubled and in another order. */
function disturbed(rollups: Rollups, random: () => number): Rollups & { counts: { lost: number; doubled: number } } {
  const counts = { lost: 0, doubled: 0 };
  const delivered: LedgerEntry[] = [];
  return {
    ...rollups,
    counts,
    async take(of, limit) {
      const taken = await rollups.take(of, limit);
      const arrived = taken.filter(() => random() > 0.3);
      counts.lost += taken.length - arrived.length;
      // Some come a second time, long after they were applied.
      const again = arrived.length > 0 ? delivered.filter(() => random() > 0.9) : [];
      counts.doubled += again.length;
      delivered.push(...arrived);
      return [...arrived, ...again].toSorted(() => random() - 0.5);
    },
    async apply(of, entries) {
      const { entries: once } = await rollups.apply(of, entries);
      const again = entries.filter(() => random() > 0.5);
      counts.doubled += again.length;
      const { entries: twice } = await rollups.apply(of, [...again, ...again]);
      return { entries: [...once, ...twice], suspicious: false };
    },
  };
}

describe("after any of these the rollups are the ledger", () => {
  it("deliveries doubled, reordered, and 30 % of them lost and given out again, to two sidecars at once", async () => {
    let seed = 7;
    const random = (): number => {
      seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
      return seed / 2 ** 31;
    };
    const bad = ["one", "two"].map((name) => disturbed(rollupsOf(name), random));
    for (const rollups of bad) follow(rollups);
    await spend(300);
    await checkAll();
    // Whichever of them had more to do.
    const sum = (what: "lost" | "doubled"): number => bad.reduce((all, { counts }) => all + counts[what], 0);
    expect(sum("lost")).toBeGreaterThan(40);
    expect(sum("doubled")).toBeGreaterThan(40);
  });

  it("three sidecars at work at once", async () => {
    for (const name of ["one", "two", "three"]) follow(rollupsOf(name));
    await spend(400);
    await checkAll();
  });

  it("a sidecar that took rows and died before it applied them", async () => {
    const dead = rollupsOf("dead");
    await spend(150);
    expect(await dead.take(tenant, 100)).toHaveLength(100);
    follow(rollupsOf("alive"));
    await checkAll();
  });

  it("a sidecar that stood still with a batch, which another applied meanwhile", async () => {
    const slow = rollupsOf("slow");
    await spend(150);
    const batch = await slow.take(tenant, 50);
    const quick = follow(rollupsOf("quick"));
    await checkAll();
    expect((await slow.apply(tenant, batch)).entries).toEqual([]);
    await quick.stop();
    await checkAll();
  });

  it("a reader that asks while another sidecar has rows: it waits for them, not for those that come later", async () => {
    const other = rollupsOf("other");
    await spend(150);
    const batch = await other.take(tenant, 50);
    const reader = follow(rollupsOf("reader"));
    const applied = new Promise((resolve) => setTimeout(resolve, 100))
      .then(() => other.apply(tenant, batch))
      .then(({ entries }) => told.push(...entries.map(({ row }) => row.recordId)));
    await reader.catchUp(tenant);
    expect((await other.standing(tenant)).pending).toBe(0);
    await applied;
    await eventually(() => expect(told.length).toBeGreaterThan(100));
    const working = { now: true };
    const spending = (async () => {
      for (let from = 150; working.now; from += 10) await spend(10, { from });
    })();
    const startMs = performance.now();
    for (let question = 0; question < 5; question += 1) await reader.catchUp(tenant);
    expect(performance.now() - startMs).toBeLessThan(4_000);
    working.now = false;
    await spending;
  });

  it("connections that are cut while replies are due", async () => {
    for (const name of ["one", "two"]) follow(rollupsOf(name));
    const killer = new Redis(server.url);
    let cuts = 0;
    const timer = setInterval(() => {
      killer.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").then(
        (cut) => {
          cuts += Number(cut);
        },
        () => undefined,
      );
    }, 25);
    await spend(300);
    clearInterval(timer);
    await checkAll();
    killer.disconnect();
    expect(cuts).toBeGreaterThan(10);
  });

  it("clocks that step forth and back, over the end of a month", async () => {
    const clock = startLyingClock("@2026-11-30 23:59:00");
    const own = await startRedisServer({ appendOnly: true, env: clock.env });
    onTestFinished(() => own.stop());
    const { url } = own;
    for (const name of ["one", "two"]) follow(rollupsOf(name, url));
    await spend(60, { url });
    clock.set("@2026-12-01 01:00:00");
    await spend(60, { from: 60, url });
    clock.set("@2026-11-30 22:30:00");
    await spend(60, { from: 120, url });
    const rollups = rollupsOf("checker", url);
    await vi.waitFor(async () => expect(await rollups.standing(tenant)).toEqual({ pending: 0, lagMs: 0 }), 10_000);
    const { accounts } = connect(url);
    const november = Date.parse("2026-11-30T22:31:00Z");
    const { rows } = await checkRollups(rollups, accounts, tenant, november);
    expect(rows).toBeGreaterThan(180);
    clock.set("@2026-12-01 02:00:00");
    await checkRollups(rollups, accounts, tenant, Date.parse("2026-12-01T02:00:00Z"));
    expect(new Set(told).size).toBe(rows);
    await checkCounters(
      rollups,
      [november, Date.parse("2026-12-01T02:00:00Z")].map((ms) => periodOf("month", ms).startMs),
    );
  });

  it("a Redis that is killed amid the work and comes back", async () => {
    for (const name of ["one", "two"]) follow(rollupsOf(name));
    const spending = spend(400);
    for (let kills = 0; kills < 3; kills += 1) {
      await new Promise((resolve) => setTimeout(resolve, 60));
      await server.restart();
    }
    await spending;
    await checkAll();
  });
});
