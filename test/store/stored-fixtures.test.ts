import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { Redis } from "ioredis";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { packageVersion } from "../../src/package-facts.ts";
import { startTestApp } from "../support/parley-app.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { readState, type StoredState } from "../support/stored-state.ts";

// Every release's state loads for ever.
const folder = join(import.meta.dirname, "../fixtures/stored");
const fixtures = readdirSync(folder);
const HOUR_MS = 3_600_000;

let redis: RedisServer;
beforeAll(async () => {
  redis = await startRedisServer();
});
afterAll(() => redis.stop());

async function restore(fixture: string): Promise<StoredState> {
  const state = JSON.parse(readFileSync(join(folder, fixture), "utf8")) as StoredState;
  const client = new Redis(redis.url);
  await client.flushall();
  for (const [name, dump] of Object.entries(state.keys))
    await client.restore(name, HOUR_MS, Buffer.from(dump, "base64"));
  client.disconnect();
  return state;
}

test("the release that package.json names has its fixture", () => {
  expect(fixtures).toContain(`v${packageVersion()}.json`);
});

test.each(fixtures)("what %s stored is read as it was then", async (fixture) => {
  const { sessionId, seen } = await restore(fixture);
  expect(await readState(redis.url, sessionId)).toEqual(seen);
});

test.each(fixtures)("a session of %s goes on", async (fixture) => {
  const { sessionId } = await restore(fixture);
  const app = await startTestApp({ redisUrl: redis.url });
  try {
    const chat = createClient(ChatService, createConnectTransport({ baseUrl: app.url, httpVersion: "2" }));
    const { response } = await chat.chat({ sessionId, userId: "u1", message: "and now?" });
    expect(response).toContain("my name is Ada");
  } finally {
    await app.close();
  }
});
