import { afterAll, beforeAll } from "vitest";
import { connectRedis, type RedisConnection } from "../../src/store/redis-connection.ts";
import { type RedisServer, startRedisServer } from "./redis-server.ts";

/** A Redis of its own and one connection to it, for the tests of a file; there while they run. */
export interface RedisOfFile {
  readonly server: RedisServer;
  readonly connection: RedisConnection;
}

/** Starts it before a file's tests, and stops it after them. */
export function useRedis(): RedisOfFile {
  let server: RedisServer;
  let connection: RedisConnection;
  beforeAll(async () => {
    server = await startRedisServer();
    connection = connectRedis(server.url);
  });
  afterAll(async () => {
    await connection?.close();
    await server?.stop();
  });
  return {
    get server() {
      return server;
    },
    get connection() {
      return connection;
    },
  };
}
