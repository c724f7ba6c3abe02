import { expect, onTestFinished, test, vi } from "vitest";
import { startLedgerConsumer } from "../../sidecar/ledger-consumer.ts";
import { createRedisRollups } from "../../sidecar/rollups-redis.ts";
import { moneyKeys } from "../../src/accounts/account-keys.ts";
import { createRedisAccountStore } from "../../src/accounts/redis-account-store.ts";
import { createLogger } from "../../src/platform/logger.ts";
import { connectRedis } from "../../src/store/redis-connection.ts";
import { call, settled } from "../accounts/calls.ts";
import { startRedisCluster } from "../support/redis-server.ts";
import { repeated } from "../support/repeated.ts";
import { checkRollups } from "./rollup-sums.ts";

const tenant = "acme";

test("a master that dies amid the work takes ledger and rollups back to the same moment: they are equal on its replica", async () => {
  const cluster = await startRedisCluster({ withReplicas: true });
  onTestFinished(() => cluster.stop());
  const logger = createLogger({ level: "silent", version: "0", track: "stable" });
  const open = (consumer: string) => {
    const connection = connectRedis(cluster.url);
    onTestFinished(() => connection.close());
    const accounts = createRedisAccountStore({ connection });
    return { accounts, rollups: createRedisRollups({ connection, accounts, consumer, claimAfterMs: 300 }) };
  };
  for (const name of ["one", "two"]) {
    const consumer = startLedgerConsumer({ rollups: open(name).rollups, logger, batchRows: 20, pollMs: 10 });
    onTestFinished(() => consumer.stop());
  }
  const { accounts, rollups } = open("looking on");
  const spend = async (from: number, count: number): Promise<void> => {
    for (let at = from; at < from + count; at += 1) {
      const row = { costMicroUsd: BigInt(at), userId: `u${at % 7}`, priceVersion: at % 3 ? "v" : "" };
      await repeated(() => accounts.hold(call(`c${at}`, row)), { everyMs: 50 });
      await repeated(() => accounts.settle(settled(`c${at}`, row)), { everyMs: 50 });
    }
  };
  await spend(0, 100);
  const spending = spend(100, 200);
  await (await cluster.masterOf(moneyKeys(tenant).ledger)).kill();
  await spending;
  await vi.waitFor(async () => expect(await rollups.standing(tenant)).toEqual({ pending: 0, lagMs: 0 }), {
    timeout: 20_000,
    interval: 100,
  });
  const { rows } = await checkRollups(rollups, accounts, tenant);
  expect(rows).toBeGreaterThan(200);
});
