import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { Redis } from "ioredis";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ChatService, type StreamChatResponse } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { packageVersion } from "../../src/package-facts.ts";
import { startTestApp } from "../support/parley-app.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { RUNNING_REQUEST, readState, type StoredState } from "../support/stored-state.ts";

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

test.each(fixtures)("a turn that %s was cut amid goes on, and what it had done is not done again", async (fixture) => {
  const { runningTurnId } = await restore(fixture);
  if (runningTurnId === undefined) {
    expect(fixture).toBe("v0.1.0.json");
    return;
  }
  // Its team is in no configuration any more, its model is.
  const yaml = "models: { sim-tools-20x50: { endpoints: [{}] } }";
  const app = await startTestApp({ redisUrl: redis.url, yaml });
  try {
    const chat = createClient(ChatService, createConnectTransport({ baseUrl: app.url, httpVersion: "2" }));
    const events: StreamChatResponse["event"][] = [];
    const sequences: bigint[] = [];
    for await (const { sequence, event } of chat.resumeTurn({ turnId: runningTurnId })) {
      if (sequence === 0n) continue;
      sequences.push(sequence);
      events.push(event);
    }
    expect(sequences).toEqual(sequences.map((_, index) => BigInt(index + 1)));
    const cases = events.map((event) => event.case);
    expect(cases.filter((one) => one === "toolCallCompleted")).toHaveLength(1);
    expect(cases.filter((one) => one === "stepRestarted")).toHaveLength(1);
    expect(events.at(-1)).toMatchObject({ value: { finishReason: FinishReason.MAX_ROUNDS } });
    // The clerk's first call and its tool call stand; its second is made again, then the assistant's.
    expect(app.simulated.calls.map(({ model }) => model)).toEqual(["sim-tools-20x50", "gpt-4"]);
    // Whoever repeats the request gets the same turn: its digest is the same in every release.
    for await (const { event } of chat.streamChat(RUNNING_REQUEST)) {
      if (event.case === "turnStarted") expect(event.value.turnId).toBe(runningTurnId);
    }
    expect(app.simulated.callCount).toBe(2);
  } finally {
    await app.close();
  }
});
