import { configuredBudgets } from "../../src/accounts/budget-lookup.ts";
import { createRedisAccountStore } from "../../src/accounts/redis-account-store.ts";
import { connectRedis, type RedisConnection } from "../../src/store/redis-connection.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { describeAccountContract } from "./account-contract.ts";

let server: RedisServer;
let connection: RedisConnection;

describeAccountContract("one Redis", {
  async start() {
    server = await startRedisServer();
    connection = connectRedis(server.url);
  },
  async open(budgets = []) {
    await connection.use((client) => client.flushall());
    return createRedisAccountStore({ connection, budgets: configuredBudgets(budgets) });
  },
  async stop() {
    await connection.close();
    await server.stop();
  },
});
