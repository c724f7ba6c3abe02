import { Redis } from "ioredis";
import { expect, test } from "vitest";
import { createRedisRollups } from "../../sidecar/rollups-redis.ts";
import { moneyKeys } from "../../src/accounts/account-keys.ts";
import { createRedisAccountStore } from "../../src/accounts/redis-account-store.ts";
import { connectRedis, type RedisConnection } from "../../src/store/redis-connection.ts";
import { call, settled, startedCall } from "../accounts/calls.ts";
import { type RedisCluster, type RedisServer, startRedisCluster, startRedisServer } from "../support/redis-server.ts";
import { applyAll, checkRollups } from "./rollup-sums.ts";
import { describeRollupContract } from "./rollups-contract.ts";

let server: RedisServer;
let cluster: RedisCluster;
let connection: RedisConnection;
let opened = 0;

async function open() {
  opened += 1;
  const accounts = createRedisAccountStore({ connection });
  return { accounts, rollups: createRedisRollups({ connection, accounts, consumer: `sidecar-${opened}` }) };
}

describeRollupContract("one Redis", {
  async start() {
    server = await startRedisServer();
    connection = connectRedis(server.url);
  },
  async open() {
    await connection.use((client) => client.flushall());
    return open();
  },
  async stop() {
    await connection.close();
    await server.stop();
  },
});

describeRollupContract("a Redis Cluster of three masters", {
  async start() {
    cluster = await startRedisCluster();
    connection = connectRedis(cluster.url);
  },
  async open() {
    for (const { port } of cluster.masters) {
      const redis = new Redis(port);
      await redis.flushall();
      redis.disconnect();
    }
    return open();
  },
  async stop() {
    await connection.close();
    await cluster.stop();
  },
});

test("keys of rollups are in the account's slot, expire, and have their format's version; a newer format is refused whole", async () => {
  const own = await startRedisServer();
  const connected = connectRedis(own.url);
  const redis = connected.client as Redis;
  const tenant = "acme";
  const accounts = createRedisAccountStore({ connection: connected });
  const rollups = createRedisRollups({ connection: connected, accounts, consumer: "one" });
  await startedCall(accounts, call("c1"));
  await accounts.settle(settled("c1"));
  await applyAll(rollups, tenant);
  const keys = await redis.keys("*rollup*");
  expect(keys.toSorted().map((key) => key.replace(/\d{6,}/, "<start>"))).toEqual([
    "{a:acme}:rollup-batch:1:one",
    "{a:acme}:rollup-unpriced:1:<start>",
    "{a:acme}:rollup:day:<start>",
    "{a:acme}:rollup:hour:<start>",
    "{a:acme}:rollup:month:<start>",
  ]);
  for (const key of keys) expect(await redis.pttl(key), key).toBeGreaterThan(0);
  const [month = ""] = await redis.keys("*rollup:month:*");
  for (const value of Object.values(await redis.hgetall(month))) expect(value).toMatch(/^1 1 /);

  await startedCall(accounts, call("c2"));
  await accounts.settle(settled("c2"));
  const all = (await redis.hget(month, "all")) ?? "";
  await redis.hset(month, "all", all.replace("1", "3"));
  const entries = await rollups.take(tenant, 10);
  await expect(rollups.apply(tenant, entries)).rejects.toMatchObject({ reason: "STORED_FORMAT_UNKNOWN" });
  // What the next release has added to a rollup stays as it is.
  await redis.hset(month, "all", `${all.replace("1", "2")} 17`);
  expect((await rollups.apply(tenant, entries)).entries).toHaveLength(1);
  expect(await redis.hget(month, "all")).toMatch(/^2 2 .* 17$/);
  await checkRollups(rollups, accounts, tenant);

  // A row of a release after the next waits for a sidecar that can read it, and shows as due.
  await redis.xadd(moneyKeys(tenant).ledger, "*", "v", "3", "r", "?");
  expect(await rollups.take(tenant, 10)).toEqual([]);
  expect((await rollups.standing(tenant)).pending).toBe(1);

  await rollups.leave();
  await connected.close();
  await own.stop();
});
