import { Redis } from "ioredis";
import { configuredBudgets } from "../../src/accounts/budget-lookup.ts";
import { createRedisAccountStore } from "../../src/accounts/redis-account-store.ts";
import { connectRedis, type RedisConnection } from "../../src/store/redis-connection.ts";
import { type RedisCluster, startRedisCluster } from "../support/redis-server.ts";
import { describeAccountContract } from "./account-contract.ts";

let cluster: RedisCluster;
let connection: RedisConnection;

describeAccountContract("a Redis Cluster of three masters", {
  async start() {
    cluster = await startRedisCluster();
    connection = connectRedis(cluster.url);
  },
  async open(budgets = []) {
    for (const { port } of cluster.masters) {
      const redis = new Redis(port);
      await redis.flushall();
      redis.disconnect();
    }
    return createRedisAccountStore({ connection, budgets: configuredBudgets(budgets) });
  },
  async stop() {
    await connection.close();
    await cluster.stop();
  },
});
