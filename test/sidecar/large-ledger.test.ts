import { once } from "node:events";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Redis } from "ioredis";
import { Registry } from "prom-client";
import { expect, onTestFinished, test, vi } from "vitest";
import type { UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import { createCostMetrics } from "../../sidecar/cost-metrics.ts";
import { startLedgerConsumer } from "../../sidecar/ledger-consumer.ts";
import { createRedisRollups } from "../../sidecar/rollups-redis.ts";
import { periodOf } from "../../src/accounts/budget-periods.ts";
import { createRedisAccountStore } from "../../src/accounts/redis-account-store.ts";
import { createLogger } from "../../src/platform/logger.ts";
import { connectRedis } from "../../src/store/redis-connection.ts";
import { settled } from "../accounts/calls.ts";
import { fillLedger } from "../support/ledger.ts";
import { startRedisServer } from "../support/redis-server.ts";
import { startSidecarProcess } from "../support/sidecar-process.ts";
import { checkRollups, countedBy, riseOf, rolledUp } from "./rollup-sums.ts";

// A million rows take minutes: `node bench/ledger.ts 1000000` does them. Here are as many as can be waited for.

const tenant = "default";
const CALLS = 50_000;
const logger = createLogger({ level: "silent", version: "0", track: "stable" });

/** Calls of a thousand users, some unpriced, some corrected. */
function* calls(): Iterable<UsageRecord> {
  const holdTime = timestampFromMs(Date.now());
  for (let n = 0; n < CALLS; n += 1) {
    const isPriced = n % 7 !== 0;
    const row = {
      tenant,
      holdTime,
      team: `team-${n % 5}`,
      userId: `u${n % 1_000}`,
      sessionId: `s${n % 2_000}`,
      turnId: `t${n}`,
      model: isPriced ? "gpt-4" : "odd",
      promptTokens: BigInt(n % 100),
      completionTokens: BigInt(n % 50),
      costMicroUsd: BigInt(n),
      priceVersion: isPriced ? "v" : "",
    };
    yield settled(`c${n}`, row);
    if (!isPriced || n % 10 !== 0) continue;
    const none = { promptTokens: 0n, completionTokens: 0n };
    yield settled(`c${n}/1`, { ...row, ...none, correctsRecordId: `c${n}`, costMicroUsd: 3n, priceVersion: "w" });
  }
}

test("a large ledger, amid which one sidecar is killed and the next is restarted: rollups = ledger, and counters rise as rollups do", async () => {
  const server = await startRedisServer({ appendOnly: true });
  onTestFinished(() => server.stop());
  const redis = new Redis(server.url);
  onTestFinished(() => redis.disconnect());
  const connection = connectRedis(server.url);
  onTestFinished(() => connection.close());
  const accounts = createRedisAccountStore({ connection });
  const rollupsOf = (consumer: string) => createRedisRollups({ connection, accounts, consumer, claimAfterMs: 300 });
  const rollups = rollupsOf("looking on");
  const monthsMs = [periodOf("month", Date.now()).startMs];
  const pending = async (): Promise<number> => (await rollups.standing(tenant)).pending;
  const clients = async (): Promise<number> =>
    String(await redis.client("LIST"))
      .trim()
      .split("\n").length;
  const until = (condition: () => Promise<void>) => vi.waitFor(condition, { timeout: 90_000, interval: 20 });

  await fillLedger(redis, tenant, calls());
  const rows = await pending();
  expect(rows).toBeGreaterThan(CALLS);
  const own = await clients();

  const { child } = await startSidecarProcess({ REDIS_URL: server.url });
  onTestFinished(() => void child.kill("SIGKILL"));
  await until(async () => expect(await pending()).toBeLessThan(rows * 0.9));
  const exit = once(child, "exit");
  child.kill("SIGKILL");
  await exit;
  // Redis has done what it was still asked to.
  await until(async () => expect(await clients()).toBe(own));
  const before = await rolledUp(rollups, tenant, monthsMs);
  expect(await pending()).toBeGreaterThan(rows * 0.5);

  const registries: Registry[] = [];
  const follow = (name: string) => {
    const releases = new Registry();
    registries.push(releases);
    const metrics = createCostMetrics({ registry: new Registry(), releases, topUsers: 3 });
    return startLedgerConsumer({
      rollups: rollupsOf(name),
      onApplied: (of, { entries }) => metrics.applied(of, entries),
      logger,
      pollMs: 10,
    });
  };
  const first = follow("first");
  await until(async () => expect(await pending()).toBeLessThan(rows * 0.5));
  await first.stop();
  expect(await pending()).toBeGreaterThan(0);
  const second = follow("second");
  await until(async () => expect(await rollups.standing(tenant)).toEqual({ pending: 0, lagMs: 0 }));
  await second.stop();

  expect(await checkRollups(rollups, accounts, tenant)).toEqual({ rows });
  const texts = await Promise.all(registries.map((registry) => registry.metrics()));
  expect(countedBy(texts, tenant)).toEqual(riseOf(await rolledUp(rollups, tenant, monthsMs), before));
}, 180_000);
