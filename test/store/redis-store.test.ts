import { connectRedis } from "../../src/store/redis-connection.ts";
import { createRedisStore } from "../../src/store/redis-store.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { describeStoreContract } from "./store-contract.ts";

let server: RedisServer;

describeStoreContract("one Redis", {
  async start() {
    server = await startRedisServer();
  },
  async open(options) {
    const connection = connectRedis(server.url);
    await connection.use((client) => client.flushall());
    return createRedisStore({ connection, ...options });
  },
  stop: () => server.stop(),
});
