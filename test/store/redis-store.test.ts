import { connectRedis } from "../../src/store/redis-connection.ts";
import { createRedisStore } from "../../src/store/redis-store.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { describeStoreContract } from "./store-contract.ts";
import { describeTurnsContract, type SharedStoreSubject } from "./turns-contract.ts";

let server: RedisServer;

const subject: SharedStoreSubject = {
  async start() {
    server = await startRedisServer();
  },
  async open(options) {
    const connection = connectRedis(server.url);
    await connection.use((client) => client.flushall());
    return createRedisStore({ connection, ...options });
  },
  join: async (options) => createRedisStore({ connection: connectRedis(server.url), ...options }),
  stop: () => server.stop(),
};

describeStoreContract("one Redis", subject);
describeTurnsContract("one Redis", subject);
