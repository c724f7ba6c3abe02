import { once } from "node:events";
import { expect, onTestFinished, test, vi } from "vitest";
import { createRedisRollups } from "../../sidecar/rollups-redis.ts";
import { createRedisAccountStore } from "../../src/accounts/redis-account-store.ts";
import { connectRedis } from "../../src/store/redis-connection.ts";
import { call, settled } from "../accounts/calls.ts";
import { startRedisServer } from "../support/redis-server.ts";
import { type SidecarProcess, startSidecarProcess } from "../support/sidecar-process.ts";
import { checkRollups } from "./rollup-sums.ts";

const tenant = "default";

test("two sidecar processes, killed at random amid the work and replaced: rollups = ledger, and each row is counted at most once", async () => {
  const server = await startRedisServer({ appendOnly: true });
  onTestFinished(() => server.stop());
  const connection = connectRedis(server.url);
  onTestFinished(() => connection.close());
  const accounts = createRedisAccountStore({ connection });
  const rollups = createRedisRollups({ connection, accounts, consumer: "looking on" });

  const start = (): Promise<SidecarProcess> => startSidecarProcess({ REDIS_URL: server.url, LOG_LEVEL: "info" });
  const running = await Promise.all([start(), start()]);
  onTestFinished(() => {
    for (const { child } of running) child.kill("SIGKILL");
  });
  let working = true;
  let rows = 0;
  const spending = (async () => {
    while (working) {
      await Promise.all(
        Array.from({ length: 40 }, async () => {
          rows += 1;
          const row = { tenant, userId: `u${rows % 50}`, costMicroUsd: BigInt(rows), priceVersion: "v" };
          const callId = `c${rows}`;
          await accounts.hold(call(callId, row));
          await accounts.settle(settled(callId, row));
        }),
      );
    }
  })();
  for (let kills = 0; kills < 4; kills += 1) {
    await new Promise((resolve) => setTimeout(resolve, 100 + Math.random() * 400));
    const [victim] = running.splice(Math.floor(Math.random() * running.length), 1);
    victim?.child.kill("SIGKILL");
    running.push(await start());
  }
  working = false;
  await spending;
  await vi.waitFor(async () => expect(await rollups.standing(tenant)).toEqual({ pending: 0, lagMs: 0 }), {
    timeout: 30_000,
    interval: 100,
  });
  expect(await checkRollups(rollups, accounts, tenant)).toEqual({ rows });
  const counted = await Promise.all(
    running.map(async ({ opsUrl }) => {
      const text = await (await fetch(`${opsUrl}/metrics`)).text();
      return Number(/^parley_ledger_rows_applied_total\{.*\} (\d+)$/m.exec(text)?.[1]);
    }),
  );
  expect(counted.reduce((sum, count) => sum + count, 0)).toBeLessThanOrEqual(rows);
  expect(counted.reduce((sum, count) => sum + count, 0)).toBeGreaterThan(0);
  // One that is told to stop applies what it has, and leaves the group.
  for (const { child } of running) {
    child.kill("SIGTERM");
    expect(await once(child, "exit")).toEqual([0, null]);
  }
  const consumers = (await connection.client.call("XINFO", "CONSUMERS", "{a:default}:ledger", "rollups")) as string[][];
  expect(consumers.length).toBeLessThanOrEqual(4);
});
