import { once } from "node:events";
import { expect, onTestFinished, test, vi } from "vitest";
import { createRedisRollups } from "../../sidecar/rollups-redis.ts";
import { periodOf } from "../../src/accounts/budget-periods.ts";
import { createRedisAccountStore } from "../../src/accounts/redis-account-store.ts";
import { connectRedis } from "../../src/store/redis-connection.ts";
import { call, settled } from "../accounts/calls.ts";
import { startRedisServer } from "../support/redis-server.ts";
import { type SidecarProcess, startSidecarProcess } from "../support/sidecar-process.ts";
import { checkRollups, countedBy, riseOf, rolledUp } from "./rollup-sums.ts";

const tenant = "default";

test("two sidecar processes, killed at random amid the work and replaced: rollups = ledger, each row is counted at most once, and counters rise as rollups do", async () => {
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
  const spend = () =>
    Promise.all(
      Array.from({ length: 40 }, async () => {
        rows += 1;
        const row = { tenant, userId: `u${rows % 50}`, costMicroUsd: BigInt(rows), priceVersion: "v" };
        const callId = `c${rows}`;
        await accounts.hold(call(callId, row));
        await accounts.settle(settled(callId, row));
      }),
    );
  const spending = (async () => {
    while (working) await spend();
  })();
  for (let kills = 0; kills < 4; kills += 1) {
    await new Promise((resolve) => setTimeout(resolve, 100 + Math.random() * 400));
    const [victim] = running.splice(Math.floor(Math.random() * running.length), 1);
    victim?.child.kill("SIGKILL");
    running.push(await start());
  }
  working = false;
  await spending;
  const caughtUp = () =>
    vi.waitFor(async () => expect(await rollups.standing(tenant)).toEqual({ pending: 0, lagMs: 0 }), {
      timeout: 30_000,
      interval: 100,
    });
  const texts = () => Promise.all(running.map(async ({ opsUrl }) => (await fetch(`${opsUrl}/metrics`)).text()));
  /** The counters of the two that live, once they have told themselves of their last batch. */
  const counted = async (atLeastRows: number) => {
    const shown = await vi.waitFor(async () => {
      const all = await texts();
      expect(rowsApplied(all)).toBeGreaterThanOrEqual(atLeastRows);
      return all;
    });
    return { rows: rowsApplied(shown), totals: countedBy(shown, tenant) };
  };
  const monthsMs = [periodOf("month", Date.now()).startMs];
  await caughtUp();
  expect(await checkRollups(rollups, accounts, tenant)).toEqual({ rows });
  const before = { counted: await counted(1), rolledUp: await rolledUp(rollups, tenant, monthsMs), rows };
  expect(before.counted.rows).toBeLessThanOrEqual(rows);

  // What the killed had counted is gone with them; from here on counters and rollups rise alike.
  for (let round = 0; round < 10; round += 1) await spend();
  await caughtUp();
  const after = await counted(before.counted.rows + rows - before.rows);
  expect(after.rows).toBe(before.counted.rows + rows - before.rows);
  const rise = riseOf(await rolledUp(rollups, tenant, monthsMs), before.rolledUp);
  expect(rise.size).toBeGreaterThan(0);
  expect(riseOf(after.totals, before.counted.totals)).toEqual(rise);
  // The gauges of both are the rollups' own sum.
  const cost = Number(await rollups.costThisMonth(tenant)) / 1e6;
  await vi.waitFor(
    async () => {
      for (const text of await texts()) {
        expect(text).toMatch(new RegExp(`^parley_rollup_cost_usd\\{tenant="default",.*\\} ${cost}$`, "m"));
      }
    },
    { timeout: 20_000, interval: 100 },
  );
  // One that is told to stop applies what it has, and leaves the group.
  for (const { child } of running) {
    child.kill("SIGTERM");
    expect(await once(child, "exit")).toEqual([0, null]);
  }
  const consumers = (await connection.client.call("XINFO", "CONSUMERS", "{a:default}:ledger", "rollups")) as string[][];
  expect(consumers.length).toBeLessThanOrEqual(4);
});

function rowsApplied(texts: readonly string[]): number {
  return texts
    .map((text) => Number(/^parley_ledger_rows_applied_total\{.*\} (\d+)$/m.exec(text)?.[1]))
    .reduce((sum, count) => sum + count, 0);
}
