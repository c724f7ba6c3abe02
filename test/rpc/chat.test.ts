import { createClient, type Transport } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ChatService, type StreamChatResponse } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { Role } from "../../gen/parley/chat/v1/message_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { type TokenUsage, UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { FinishReason, TurnState } from "../../gen/parley/chat/v1/turn_pb.js";
import { costMicroUsd } from "../../src/accounts/model-price.ts";
import { createPriceTable } from "../../src/accounts/price-table.ts";
import { pricesYamlSchema, readPrices } from "../../src/accounts/prices-yaml.ts";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { startInMemory } from "./in-memory.ts";
import { drained } from "./refusals.ts";
import { wires } from "./wires.ts";

let app: TestApp;
let memory: Awaited<ReturnType<typeof startInMemory>>;
beforeAll(async () => {
  // Every piece comes by itself, so that a reply is several deltas.
  app = await startTestApp({ chunkDelayMs: 2 });
  memory = await startInMemory();
});
afterAll(async () => {
  await app.close();
  await memory.close();
});

const ways = [
  { name: "in memory", transport: () => memory.transport },
  ...wires.map((wire) => ({ name: wire.name, transport: () => wire.transport(app.url) })),
];

const price = createPriceTable(readPrices(pricesYamlSchema.parse(undefined))).at("gpt-4", Date.now());

/** What a call of gpt-4 costs. */
function costOf({ promptTokens = 0, completionTokens = 0 }: Partial<TokenUsage> = {}): bigint {
  expect(promptTokens * completionTokens).toBeGreaterThan(0);
  return costMicroUsd(price, { promptTokens, completionTokens, cachedPromptTokens: 0, reasoningTokens: 0 });
}

/** What a stream said, put together. */
function readTogether(events: readonly StreamChatResponse[]) {
  const read = { deltas: "", completed: "", sessionId: "", turnId: "" };
  for (const { event } of events) {
    if (event.case === "textDelta") read.deltas += event.value.text;
    if (event.case === "messageCompleted") read.completed += event.value.content;
    if (event.case === "turnStarted")
      Object.assign(read, { sessionId: event.value.sessionId, turnId: event.value.turnId });
  }
  return read;
}

describe.each(ways)("$name", ({ transport }) => {
  let chat: ReturnType<typeof createClient<typeof ChatService>>;
  let sessions: ReturnType<typeof createClient<typeof SessionService>>;
  beforeAll(() => {
    const to: Transport = transport();
    chat = createClient(ChatService, to);
    sessions = createClient(SessionService, to);
  });

  test("a streamed turn is numbered without a gap, from turn_started to turn_completed", async () => {
    const events = await drained(chat.streamChat({ message: "Bonjour, ça va? 🦜", userId: "u1" }));
    expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, index) => BigInt(index + 1)));
    expect(events[0]?.event).toMatchObject({
      case: "turnStarted",
      value: { agentTeam: "assistant", version: "0.0.0-test", track: "stable" },
    });
    const cases = events.map(({ event }) => event.case);
    expect([...new Set(cases)]).toEqual([
      "turnStarted",
      "agentStarted",
      "textDelta",
      "messageCompleted",
      "usageRecorded",
      "turnCompleted",
    ]);
    expect(cases.filter((name) => name === "turnCompleted")).toHaveLength(1);
    const usage = events.find(({ event }) => event.case === "usageRecorded")?.event.value;
    const end = events.at(-1)?.event.value;
    expect(usage).toMatchObject({ model: "gpt-4", usageSource: UsageSource.PROVIDER });
    const { tokenUsage } = usage as { tokenUsage: TokenUsage };
    expect(usage).toHaveProperty("costMicroUsd", costOf(tokenUsage));
    expect(end).toMatchObject({ finishReason: FinishReason.STOP, costMicroUsd: costOf(tokenUsage) });
    expect(end).toHaveProperty("tokenUsage", tokenUsage);
  });

  test("deltas put together are the completed message, the stored one, and what Chat replies to the same", async () => {
    const request = { message: "say it again, with feeling", userId: "u1" };
    const read = readTogether(await drained(chat.streamChat(request)));
    const reply = await chat.chat(request);
    const { messages } = await sessions.listMessages({ sessionId: read.sessionId });
    expect(read.deltas).toContain("say it again, with feeling");
    expect([read.completed, reply.response, messages[1]?.content]).toEqual([read.deltas, read.deltas, read.deltas]);
    expect(reply).toMatchObject({ finishReason: FinishReason.STOP, costMicroUsd: costOf(reply.tokenUsage) });
    expect(reply.tokenUsage?.totalTokens).toBe(
      (reply.tokenUsage?.promptTokens ?? 0) + (reply.tokenUsage?.completionTokens ?? 0),
    );
    expect(reply.tokenUsage?.completionTokens).toBeGreaterThan(0);
    expect(reply.sessionId).not.toBe(read.sessionId);
  });

  test("a session goes on: the model knows what was said, the history has it, and the turn can be asked for", async () => {
    const first = await chat.chat({ message: "my name is Ada", userId: "u1", metadata: { lang: "en" } });
    const { sessionId } = first;
    const second = await chat.chat({ sessionId, message: "what is my name?", userId: "u1" });
    expect(second.sessionId).toBe(sessionId);
    expect(second.response).toContain("my name is Ada");
    const { messages } = await sessions.listMessages({ sessionId });
    expect(messages.map(({ role, turnId, content }) => [role, turnId, content])).toEqual([
      [Role.USER, first.turnId, "my name is Ada"],
      [Role.ASSISTANT, first.turnId, first.response],
      [Role.USER, second.turnId, "what is my name?"],
      [Role.ASSISTANT, second.turnId, second.response],
    ]);
    expect(new Set(messages.map(({ messageId }) => messageId)).size).toBe(4);
    const { session } = await sessions.getSession({ sessionId });
    expect(session).toMatchObject({ userId: "u1", metadata: { lang: "en" }, messageCount: 4n });
    const tokens = (first.tokenUsage?.totalTokens ?? 0) + (second.tokenUsage?.totalTokens ?? 0);
    expect(session?.tokenUsage?.totalTokens).toBe(tokens);
    const { turn } = await chat.getTurn({ turnId: second.turnId });
    expect(turn).toMatchObject({
      turnId: second.turnId,
      sessionId,
      state: TurnState.FINISHED,
      finishReason: FinishReason.STOP,
      tokenUsage: second.tokenUsage,
    });
    expect(turn?.lastSequence).toBeGreaterThan(4n);
  });

  test("turns of a session that come at once run one after another, each told its place", async () => {
    const { session } = await sessions.createSession({ userId: "u1" });
    const sessionId = session?.sessionId ?? "";
    const turns = await Promise.all(
      ["one", "two", "three"].map((message) => drained(chat.streamChat({ sessionId, message, userId: "u1" }))),
    );
    for (const events of turns) {
      const logged = events.filter(({ event }) => event.case !== "turnQueued");
      expect(logged.map(({ sequence }) => sequence)).toEqual(logged.map((_, index) => BigInt(index + 1)));
      const queued = events.filter(({ event }) => event.case === "turnQueued");
      expect(queued.every(({ sequence }) => sequence === 0n)).toBe(true);
    }
    const { messages } = await sessions.listMessages({ sessionId });
    expect(messages.map(({ role }) => role)).toEqual([1, 2, 1, 2, 1, 2]);
    expect(new Set(messages.filter(({ role }) => role === Role.USER).map(({ content }) => content))).toEqual(
      new Set(["one", "two", "three"]),
    );
  });
});

test("JSON is camelCase with int64 as strings, and requests may be written either way", async () => {
  const post = (rpc: string, body: unknown) =>
    fetch(`${app.url}/parley.chat.v1.ChatService/${rpc}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  const answer = await post("Chat", { message: "hello", user_id: "u1", max_tokens: 1_000 });
  expect(answer.headers.get("content-type")).toBe("application/json");
  const reply = (await answer.json()) as { tokenUsage: TokenUsage };
  expect(reply).toEqual({
    sessionId: expect.any(String),
    turnId: expect.any(String),
    response: expect.stringContaining("hello"),
    tokenUsage: {
      promptTokens: expect.any(Number),
      completionTokens: expect.any(Number),
      totalTokens: expect.any(Number),
    },
    costMicroUsd: String(costOf(reply.tokenUsage)),
    processingTimeMs: expect.stringMatching(/^\d+$/),
    finishReason: "FINISH_REASON_STOP",
  });
  expect((await post("Chat", { message: "hello", userId: "u1", maxTokens: 1_000 })).status).toBe(200);
});
