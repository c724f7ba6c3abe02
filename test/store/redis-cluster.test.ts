import { Redis } from "ioredis";
import { connectRedis } from "../../src/store/redis-connection.ts";
import { createRedisStore } from "../../src/store/redis-store.ts";
import { type RedisCluster, startRedisCluster } from "../support/redis-server.ts";
import { describeStoreContract } from "./store-contract.ts";

let cluster: RedisCluster;

describeStoreContract("a Redis Cluster of three masters", {
  async start() {
    cluster = await startRedisCluster();
  },
  async open(options) {
    for (const { port } of cluster.masters) {
      const redis = new Redis(port);
      await redis.flushall();
      redis.disconnect();
    }
    return createRedisStore({ connection: connectRedis(cluster.url), ...options });
  },
  stop: () => cluster.stop(),
});
