import { connectRedis } from "../../src/store/redis-connection.ts";
import { createRedisStore } from "../../src/store/redis-store.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { describeTurnsContract, type SharedStoreSubject } from "./turns-contract.ts";

let master: RedisServer;
let replica: RedisServer;

const connect = () => connectRedis(master.url, { durability: "replica" });

const subject: SharedStoreSubject = {
  async start() {
    master = await startRedisServer();
    replica = await startRedisServer({ replicaOf: master.port });
  },
  async open(options) {
    const connection = connect();
    await connection.use((client) => client.flushall());
    return createRedisStore({ connection, ...options });
  },
  join: async (options) => createRedisStore({ connection: connect(), ...options }),
  async stop() {
    await replica.stop();
    await master.stop();
  },
};

describeTurnsContract("one Redis and a replica of it", subject);
