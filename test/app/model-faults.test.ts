import { Code, createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { ChatService, OnDisconnect, type StreamChatResponse } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { FinishReason, TurnState } from "../../gen/parley/chat/v1/turn_pb.js";
import type { FailureReason } from "../../src/failure.ts";
import { deadBaseUrl } from "../providers/model-server.ts";
import { expectRefusal, refusalOf } from "../rpc/refusals.ts";
import { threeWires } from "../rpc/wires.ts";
import { eventually } from "../support/eventually.ts";
import { startTestApp, type TestApp } from "../support/parley-app.ts";

// What a caller, the turn's log, the history and the bill see when models fail. One agent team for each fault.

let app: TestApp;
beforeAll(async () => {
  app = await startTestApp({ yaml: yamlOf({ down: await deadBaseUrl() }), chunkDelayMs: 1 });
});
afterAll(() => app.close());

interface Fault {
  readonly team: string;
  readonly code: Code;
  readonly reason: FailureReason;
  /** What RetryInfo advises, in seconds; absent: there is none. */
  readonly retrySeconds?: number;
  /** What the log has of the call: nothing, a call of no tokens, or an estimate of what it used. */
  readonly record: "none" | "nothing used" | "estimate";
  /** Whether text comes before the failure. */
  readonly speaks?: boolean;
}

const refused = { code: Code.FailedPrecondition, reason: "MODEL_REFUSED", record: "nothing used" } as const;
const unavailable = { code: Code.Aborted, reason: "MODEL_UNAVAILABLE", retrySeconds: 1 } as const;

const FAULTS: readonly Fault[] = [
  { team: "down", ...unavailable, record: "none" },
  { team: "sim-400", ...refused },
  { team: "sim-401", ...refused },
  { team: "sim-403", ...refused },
  { team: "sim-404", ...refused },
  {
    team: "sim-429",
    code: Code.ResourceExhausted,
    reason: "MODEL_RATE_LIMITED",
    retrySeconds: 7,
    record: "nothing used",
  },
  { team: "sim-500", ...unavailable, record: "nothing used" },
  { team: "sim-html", ...unavailable, record: "estimate" },
  { team: "sim-empty", ...unavailable, record: "estimate" },
  { team: "sim-cut", ...unavailable, record: "estimate", speaks: true },
  { team: "sim-malformed", ...unavailable, record: "estimate", speaks: true },
  { team: "sim-stall", ...unavailable, record: "estimate" },
  { team: "sim-stall-midway", ...unavailable, record: "estimate", speaks: true },
  { team: "too-long", ...unavailable, record: "estimate", speaks: true },
];

describe.each(threeWires)("on $name", (wire) => {
  describe.each(FAULTS)("$team", ({ team, code, reason, retrySeconds, record, speaks = false }) => {
    test("fails the call with its status, its turn with a record, and leaves the session as it was", async () => {
      const transport = wire.transport(app.url);
      const chat = createClient(ChatService, transport);
      const sessions = createClient(SessionService, transport);
      const { sessionId } = await chat.chat({ message: "I am Ada", userId: "u1" });
      const before = await historyOf(sessions, sessionId);
      expect(before).toHaveLength(2);

      const { events, error } = await readAll(
        chat.streamChat({ sessionId, message: "Who am I?", userId: "u1", agentTeam: team }),
      );
      const refusal = await refusalOf(Promise.reject(error));
      expectRefusal(refusal, { code, reason });
      expect(refusal.findDetails(RetryInfoSchema).map(({ retryDelay }) => Number(retryDelay?.seconds))).toEqual(
        retrySeconds === undefined ? [] : [retrySeconds],
      );
      const unary = chat.chat({ sessionId, message: "Who am I?", userId: "u1", agentTeam: team });
      expectRefusal(await refusalOf(unary), { code, reason });

      // The log.
      expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, index) => BigInt(index + 1)));
      expect(events.some(({ event }) => event.case === "textDelta")).toBe(speaks);
      expect(events.some(({ event }) => event.case === "messageCompleted")).toBe(false);
      const records = usageIn(events);
      expect(records).toHaveLength(record === "none" ? 0 : 1);
      for (const { usageSource, tokenUsage } of records) {
        expect(usageSource).toBe(UsageSource.TOKENIZER_ESTIMATE);
        expect(tokenUsage?.promptTokens !== 0).toBe(record === "estimate");
      }
      const end = events.at(-1)?.event;
      expect(end).toMatchObject({ case: "turnCompleted", value: { finishReason: FinishReason.ERROR } });

      // The turn, as anyone reads it later.
      const { turn } = await chat.getTurn({ turnId: turnIdIn(events) });
      expect(turn).toMatchObject({
        sessionId,
        state: TurnState.FINISHED,
        finishReason: FinishReason.ERROR,
        lastSequence: events.at(-1)?.sequence,
      });
      const used = sumOf(records);
      expect(turn?.tokenUsage).toMatchObject({ promptTokens: used.prompt, completionTokens: used.completion });
      expect(end?.value).toHaveProperty("tokenUsage", turn?.tokenUsage);

      // The session, and the next message.
      expect(await historyOf(sessions, sessionId)).toEqual(before);
      const { response, finishReason } = await chat.chat({ sessionId, message: "Who am I?", userId: "u1" });
      expect(finishReason).toBe(FinishReason.STOP);
      expect(response).toContain("I am Ada");
      const sent = app.simulated.calls.at(-1)?.messages.map(({ role, content }) => `${role} ${content}`);
      expect(sent?.slice(1)).toEqual(["user I am Ada", `assistant ${before[1]}`, "user Who am I?"]);
    });
  });
});

describe("a fallback", () => {
  const chatOf = () => createClient(ChatService, threeWires[1].transport(app.url));

  test.each([
    ["fallback-500", "sim-500", "nothing used"],
    ["fallback-stall", "sim-stall", "estimate"],
  ])("%s answers, and the log has both attempts", async (agentTeam, failed, record) => {
    const { events, error } = await readAll(chatOf().streamChat({ message: "Hello", userId: "u1", agentTeam }));
    expect(error).toBeUndefined();
    const cases = events.map(({ event }) => event.case).filter((name) => name !== "textDelta");
    expect(cases).toEqual([
      "turnStarted",
      "agentStarted",
      "usageRecorded",
      "messageCompleted",
      "usageRecorded",
      "turnCompleted",
    ]);
    const [first, second] = usageIn(events);
    expect(first).toMatchObject({ model: failed, usageSource: UsageSource.TOKENIZER_ESTIMATE });
    expect(first?.tokenUsage?.promptTokens !== 0).toBe(record === "estimate");
    const { promptTokens, completionTokens } = app.simulated.calls.at(-1) ?? expect.fail();
    expect(second).toMatchObject({
      model: "gpt-4o",
      usageSource: UsageSource.PROVIDER,
      tokenUsage: { promptTokens, completionTokens },
    });
    const used = sumOf(usageIn(events));
    expect(events.at(-1)?.event.value).toMatchObject({
      finishReason: FinishReason.STOP,
      tokenUsage: { promptTokens: used.prompt, completionTokens: used.completion },
    });
  });

  test("to a server that is down leaves no record of it", async () => {
    const { events } = await readAll(
      chatOf().streamChat({ message: "Hello", userId: "u1", agentTeam: "fallback-down" }),
    );
    expect(usageIn(events).map(({ model }) => model)).toEqual(["gpt-4o"]);
  });

  test("stays within the turn's tokens: an attempt that used them up is the last", async () => {
    const request = { message: "x".repeat(700), userId: "u1", agentTeam: "fallback-stall", maxTokens: 1_400 };
    const refusal = await refusalOf(chatOf().chat(request));
    expectRefusal(refusal, { code: Code.Aborted, reason: "MODEL_UNAVAILABLE" });
    expect(app.simulated.calls.at(-1)?.model).toBe("sim-stall");
  });
});

test("the metric of tokens is the sum of all usage records", async () => {
  const chat = createClient(ChatService, threeWires[0].transport(app.url));
  const before = await tokensCounted(app);
  const expected = new Map<string, number>();
  for (const agentTeam of ["assistant", "fallback-stall", "sim-cut", "sim-500", "sim-no-usage", "down"]) {
    const { events } = await readAll(chat.streamChat({ message: "Hello", userId: "u1", agentTeam }));
    for (const { model, tokenUsage } of usageIn(events)) {
      for (const [type, tokens] of [
        ["prompt", tokenUsage?.promptTokens ?? 0],
        ["completion", tokenUsage?.completionTokens ?? 0],
      ] as const) {
        expected.set(`${model} ${type}`, (expected.get(`${model} ${type}`) ?? 0) + tokens);
      }
    }
  }
  expect(expected.get("gpt-4o prompt")).toBeGreaterThan(0);
  expect(expected.get("sim-stall prompt")).toBeGreaterThan(0);
  await eventually(async () => {
    const after = await tokensCounted(app);
    for (const [key, tokens] of expected)
      expect([key, (after.get(key) ?? 0) - (before.get(key) ?? 0)]).toEqual([key, tokens]);
  });
});

test("a provider that reports no usage answers all the same, and its usage is labelled an estimate", async () => {
  const chat = createClient(ChatService, threeWires[0].transport(app.url));
  const { events, error } = await readAll(
    chat.streamChat({ message: "Hello", userId: "u1", agentTeam: "sim-no-usage" }),
  );
  expect(error).toBeUndefined();
  expect(usageIn(events)).toMatchObject([{ usageSource: UsageSource.TOKENIZER_ESTIMATE }]);
});

test("a turn that is cancelled amid a reply closes the model's socket, keeps what was said and has a record", async () => {
  const transport = threeWires[1].transport(app.url);
  const chat = createClient(ChatService, transport);
  const stop = new AbortController();
  const callsBefore = app.simulated.callCount;
  const events: StreamChatResponse[] = [];
  const reading = (async () => {
    const request = { message: "Tell me", userId: "u1", agentTeam: "long", onDisconnect: OnDisconnect.CANCEL };
    for await (const event of chat.streamChat(request, { signal: stop.signal })) {
      events.push(event);
      if (event.event.case === "textDelta") stop.abort();
    }
  })();
  expect((await refusalOf(reading)).code).toBe(Code.Canceled);
  const turnId = turnIdIn(events);
  await eventually(async () => expect((await chat.getTurn({ turnId })).turn?.state).toBe(TurnState.FINISHED));
  const { turn } = await chat.getTurn({ turnId });
  expect(turn?.finishReason).toBe(FinishReason.CANCELLED);
  expect(turn?.tokenUsage?.promptTokens).toBeGreaterThan(0);
  expect(turn?.tokenUsage?.completionTokens).toBeGreaterThan(0);
  await eventually(() => expect(app.simulated.calls[callsBefore]?.state).toBe("closed_by_client"));
  const [asked, said] = await historyOf(createClient(SessionService, transport), turn?.sessionId ?? "");
  expect(asked).toBe("Tell me");
  expect(said).toContain("piece 0");
});

/** An agent team for each fault, named for its model, and a default one that is well. */
function yamlOf({ down }: { down: string }): string {
  const idle = (ms: number) => ({ idle_timeout_ms: ms });
  const models: Record<string, object[]> = {
    down: [{ base_url: down }],
    "too-long": [{ model: "sim-1000x20" }],
    long: [{ model: "sim-1000x20" }],
    "fallback-500": [{ model: "sim-500" }, { model: "gpt-4o" }],
    "fallback-stall": [{ model: "sim-stall", ...idle(200) }, { model: "gpt-4o" }],
    "fallback-down": [{ base_url: down }, { model: "gpt-4o" }],
    "sim-no-usage": [{}],
  };
  for (const { team } of FAULTS) models[team] ??= [team.startsWith("sim-stall") ? idle(200) : {}];
  const names = Object.keys(models);
  const agents = names.map((name) => [name, { model: name }]);
  const teams = names.map((name) => [name, { agent: name, ...(name === "too-long" ? { call_timeout_ms: 300 } : {}) }]);
  // JSON is YAML.
  return JSON.stringify({
    agents: { assistant: {}, ...Object.fromEntries(agents) },
    teams: { assistant: { agent: "assistant" }, ...Object.fromEntries(teams) },
    default_team: "assistant",
    models: Object.fromEntries(names.map((name) => [name, { endpoints: models[name] }])),
    breaker: { min_calls: 1_000 },
  });
}

async function readAll(stream: AsyncIterable<StreamChatResponse>) {
  const events: StreamChatResponse[] = [];
  try {
    for await (const event of stream) events.push(event);
    return { events, error: undefined };
  } catch (error) {
    return { events, error };
  }
}

function usageIn(events: readonly StreamChatResponse[]) {
  return events.flatMap(({ event }) => (event.case === "usageRecorded" ? [event.value] : []));
}

function sumOf(records: ReturnType<typeof usageIn>): { prompt: number; completion: number } {
  return {
    prompt: records.reduce((sum, { tokenUsage }) => sum + (tokenUsage?.promptTokens ?? 0), 0),
    completion: records.reduce((sum, { tokenUsage }) => sum + (tokenUsage?.completionTokens ?? 0), 0),
  };
}

function turnIdIn(events: readonly StreamChatResponse[]): string {
  const event = events[0]?.event;
  return event?.case === "turnStarted" ? event.value.turnId : "";
}

async function historyOf(
  sessions: ReturnType<typeof createClient<typeof SessionService>>,
  sessionId: string,
): Promise<string[]> {
  return (await sessions.listMessages({ sessionId })).messages.map(({ content }) => content);
}

/** `parley_tokens_total` by model and type. */
async function tokensCounted({ metrics }: TestApp): Promise<Map<string, number>> {
  const rows = (await metrics()).matchAll(/^parley_tokens_total\{model="([^"]+)",type="([^"]+)".*\} (\d+)$/gm);
  return new Map([...rows].map(([, model, type, tokens]) => [`${model} ${type}`, Number(tokens)]));
}
