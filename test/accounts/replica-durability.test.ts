import { create } from "@bufbuild/protobuf";
import { afterAll, beforeAll, expect, it, onTestFinished } from "vitest";
import { ApiKeyRecordSchema } from "../../gen/parley/storage/v1/api_key_record_pb.js";
import { createRedisAccountStore } from "../../src/accounts/redis-account-store.ts";
import { Failure } from "../../src/failure.ts";
import { createRedisApiKeyStore } from "../../src/identity/redis-api-key-store.ts";
import { connectRedis, type RedisConnection } from "../../src/store/redis-connection.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { call, settled } from "./calls.ts";

// With `replica` nothing of an account, and no key, counts as written that a failover can forget.

const tenant = "acme";

/** Each write, as somebody makes it, on what those before it have left. */
function writesOf(connection: RedisConnection): [what: string, write: () => Promise<unknown>][] {
  const store = createRedisAccountStore({ connection });
  const keys = createRedisApiKeyStore(connection);
  const budget = { scope: "user:ann", period: "month", dryRun: false } as const;
  const correction = settled("c1+1", { correctsRecordId: "c1", costMicroUsd: 1n });
  return [
    ["a budget", () => store.setBudget(tenant, { ...budget, limitMicroUsd: 1_000n })],
    ["no budget any more", () => store.setBudget(tenant, budget)],
    ["a hold", () => store.hold(call("c1"))],
    ["a start", () => store.start({ tenant, callId: "c1" }, "me")],
    ["a charge", () => store.settle(settled("c1"))],
    ["a correction", () => store.amend(tenant, [{ difference: correction }])],
    ["a key", () => keys.add("hash", create(ApiKeyRecordSchema, { schemaVersion: 1, tenant }))],
    ["no key any more", () => keys.remove("hash")],
  ];
}

let master: RedisServer;
let connection: RedisConnection;
beforeAll(async () => {
  master = await startRedisServer();
  connection = connectRedis(master.url, { durability: "replica" });
});
afterAll(async () => {
  await connection.close();
  await master.stop();
});

it("without a replica no write is more than tried", async () => {
  for (const [what, write] of writesOf(connection)) {
    const outcome = await write().then(
      () => "written",
      (error: unknown) => (error instanceof Failure ? error.reason : error),
    );
    expect({ what, outcome }).toEqual({ what, outcome: "STORE_UNAVAILABLE" });
  }
});

it("with a replica all that is written is there", async () => {
  const replica = await startRedisServer({ replicaOf: master.port });
  const copy = connectRedis(replica.url);
  onTestFinished(async () => {
    await copy.close();
    await replica.stop();
  });
  await connection.use((client) => client.flushall());
  let before: Record<string, unknown> = {};
  for (const [what, write] of writesOf(connection)) {
    await write();
    const [written = {}, copied] = await Promise.all([connection, copy].map(keyspaceOf));
    expect(written, what).not.toEqual(before);
    expect(copied, what).toEqual(written);
    before = written;
  }
});

/** All that a Redis has, by key. */
async function keyspaceOf({ use }: RedisConnection): Promise<Record<string, unknown>> {
  return await use(async (client) => {
    const values: Record<string, unknown> = {};
    for (const key of await client.keys("*")) {
      const type = await client.type(key);
      if (type === "hash") values[key] = await client.hgetall(key);
      else if (type === "zset") values[key] = await client.zrange(key, "0", "-1", "WITHSCORES");
      else values[key] = await client.xrange(key, "-", "+");
    }
    return values;
  });
}
