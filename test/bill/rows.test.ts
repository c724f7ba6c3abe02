import type { ServerResponse } from "node:http";
import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { CallOutcome, type UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import { costMicroUsd } from "../../src/accounts/model-price.ts";
import { createPriceTable } from "../../src/accounts/price-table.ts";
import { pricesYamlSchema, readPrices } from "../../src/accounts/prices-yaml.ts";
import { tokenizerFor } from "../../src/engine/tokenizer.ts";
import { beginStream, DONE, deadBaseUrl, event, STOP, startModelServer, textEvent } from "../providers/model-server.ts";
import { threeWires } from "../rpc/wires.ts";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { callsOf, expectAddsUp, expectTrue, pairedUp } from "./bill.ts";

// Every model call has its row, whatever the model says of its usage and however the call ends.

let redis: RedisServer;
beforeAll(async () => {
  redis = await startRedisServer();
});
afterAll(() => redis.stop());

const prices = createPriceTable(readPrices(pricesYamlSchema.parse(undefined)));

/** What a row must cost: by its own tokens, at the price of its hold's time. */
function expectPriced(row: UsageRecord): void {
  const price = prices.at(row.model, Number(row.holdTime?.seconds ?? 0n) * 1_000);
  const counts = {
    promptTokens: Number(row.promptTokens),
    cachedPromptTokens: Number(row.cachedPromptTokens),
    completionTokens: Number(row.completionTokens),
    reasoningTokens: Number(row.reasoningTokens),
  };
  expect([row.costMicroUsd, row.priceVersion]).toEqual([costMicroUsd(price, counts), price.version]);
}

/** A turn and how it ended; its charges, once all of its calls have one. */
async function turnOf(app: TestApp, message: string, fields: { agentTeam?: string } = {}) {
  const chat = createClient(ChatService, threeWires[1].transport(app.url));
  const usage: { costMicroUsd: bigint; usageSource: UsageSource }[] = [];
  let turnId = "";
  let total = 0n;
  try {
    for await (const { event: said } of chat.streamChat({ message, userId: "ann", useCase: "tests", ...fields })) {
      if (said.case === "turnStarted") turnId = said.value.turnId;
      if (said.case === "usageRecorded") usage.push(said.value);
      if (said.case === "turnCompleted") total = said.value.costMicroUsd;
    }
  } catch {
    // Failed turns have their rows too.
  }
  const charges = (await expectAddsUp(redis)).filter((row) => row.turnId === turnId);
  // What the log says is what is charged, call by call and in sum.
  expect(usage.map((one) => [one.costMicroUsd, one.usageSource])).toEqual(
    charges.map((row) => [row.costMicroUsd, row.usageSource]),
  );
  expect(total).toBe(charges.reduce((sum, row) => sum + row.costMicroUsd, 0n));
  for (const row of charges) {
    expectPriced(row);
    expect(row).toMatchObject({ tenant: "default", userId: "ann", useCase: "tests", version: "0.0.0-test" });
    expect(row.recordId.startsWith(`${turnId}/`)).toBe(true);
  }
  return charges;
}

describe("a call's row", () => {
  let app: TestApp;
  const models = ["gpt-4o", "sim-no-usage", "sim-429", "sim-500", "sim-400", "sim-cut", "sim-malformed", "sim-length"];
  beforeAll(async () => {
    const named = Object.fromEntries(models.map((model) => [model, { model }]));
    const stalls = { "sim-stall-midway": { endpoints: [{ idle_timeout_ms: 300 }] } };
    const yaml = {
      agents: { ...named, stalls: { model: "sim-stall-midway" } },
      teams: Object.fromEntries([...models, "stalls"].map((agent) => [agent, { agent }])),
      models: stalls,
      breaker: { min_calls: 1_000 },
    };
    app = await startTestApp({ redisUrl: redis.url, yaml: JSON.stringify(yaml) });
  });
  afterAll(() => app.close());

  test.each([
    ["gpt-4o", "answers", UsageSource.PROVIDER, CallOutcome.OK],
    ["sim-length", "ends at its length", UsageSource.PROVIDER, CallOutcome.OK],
    ["sim-no-usage", "reports no usage", UsageSource.TOKENIZER_ESTIMATE, CallOutcome.OK],
    ["sim-cut", "is cut off", UsageSource.TOKENIZER_ESTIMATE, CallOutcome.FAILED],
    ["sim-malformed", "says what is no event", UsageSource.TOKENIZER_ESTIMATE, CallOutcome.FAILED],
    ["stalls", "stalls midway", UsageSource.TOKENIZER_ESTIMATE, CallOutcome.FAILED],
    ["sim-429", "limits the rate", UsageSource.TOKENIZER_ESTIMATE, CallOutcome.FAILED],
    ["sim-500", "fails", UsageSource.TOKENIZER_ESTIMATE, CallOutcome.FAILED],
    ["sim-400", "refuses", UsageSource.TOKENIZER_ESTIMATE, CallOutcome.FAILED],
  ] as const)("of a model (%s) that %s", async (agentTeam, how, usageSource, outcome) => {
    const message = `a model that ${how}`;
    const charges = await turnOf(app, message, { agentTeam });
    const pairs = pairedUp(charges, callsOf(app.simulated.calls, message));
    expect(pairs).toHaveLength(1);
    const [pair] = pairs;
    if (pair === undefined) return;
    const { charge, call } = pair;
    expect(charge).toMatchObject({ usageSource, outcome, model: call.model, agent: agentTeam });
    expectTrue(charge, call, { delivered: call.completionTokens });
    if (usageSource === UsageSource.TOKENIZER_ESTIMATE && call.completionTokens > 0) {
      expect(charge.promptTokens).toBe(BigInt(call.promptTokens));
    }
  });
});

/** A service whose model answers as a test says. */
async function appOf(answer: (response: ServerResponse) => void | Promise<void>) {
  const server = await startModelServer(answer);
  const app = await startTestApp({ redisUrl: redis.url, model: "gpt-4o", env: { OPENAI_BASE_URL: server.baseUrl } });
  onTestFinished(() => app.close());
  return { app, server };
}

const usageEvent = (usage: unknown): string => event({ choices: [], usage });
const USAGE = { prompt_tokens: 1_000, completion_tokens: 200, total_tokens: 1_200 };

describe("usage as a model reports it", () => {
  test("has cached and reasoning tokens, each at its price", async () => {
    const detailed = {
      ...USAGE,
      prompt_tokens_details: { cached_tokens: 900 },
      completion_tokens_details: { reasoning_tokens: 150 },
    };
    const { app } = await appOf((response) => {
      beginStream(response);
      response.end(textEvent("hello") + STOP + usageEvent(detailed) + DONE);
    });
    const [row, ...others] = await turnOf(app, "cached");
    expect(others).toEqual([]);
    expect(row).toMatchObject({
      promptTokens: 1_000n,
      cachedPromptTokens: 900n,
      completionTokens: 200n,
      reasoningTokens: 150n,
      usageSource: UsageSource.PROVIDER,
      // gpt-4o: 2.5 and 1.25 (cached) dollars a million in, 10 out.
      costMicroUsd: 250n + 1_125n + 2_000n,
    });
  });

  test("counts once though it comes twice, or with every chunk", async () => {
    const soFar = { ...USAGE, completion_tokens: 1, total_tokens: 1_001 };
    const { app } = await appOf((response) => {
      beginStream(response);
      response.write(event({ choices: [{ index: 0, delta: { content: "hello" } }], usage: soFar }));
      response.end(STOP + usageEvent(USAGE) + usageEvent(USAGE) + DONE);
    });
    expect(await turnOf(app, "twice")).toMatchObject([
      { promptTokens: 1_000n, completionTokens: 200n, usageSource: UsageSource.PROVIDER },
    ]);
  });

  test.each([
    ["negative", { prompt_tokens: -5, completion_tokens: 200 }],
    ["fractions", { prompt_tokens: 1.5, completion_tokens: 2 }],
    ["text", { prompt_tokens: "many", completion_tokens: "few" }],
    ["beyond 32 bits", { prompt_tokens: 1e12, completion_tokens: 1 }],
    ["missing parts", { total_tokens: 5 }],
    ["a list", [1, 2]],
    ["true", true],
  ])("is estimated where it is nonsense: %s", async (name, usage) => {
    const { app, server } = await appOf((response) => {
      beginStream(response);
      response.end(textEvent("hello there") + STOP + usageEvent(usage) + DONE);
    });
    const [row, ...others] = await turnOf(app, `nonsense: ${name}`);
    expect(others).toEqual([]);
    const tokenizer = tokenizerFor("gpt-4o");
    const { messages } = (server.requests.at(-1)?.body ?? {}) as { messages: { role: "user"; content: string }[] };
    expect(row).toMatchObject({
      usageSource: UsageSource.TOKENIZER_ESTIMATE,
      promptTokens: BigInt(tokenizer.countPrompt(messages)),
      completionTokens: BigInt(tokenizer.countText("hello there")),
    });
  });

  test("has no more cached tokens than prompt, no more reasoning than completion", async () => {
    const { app } = await appOf((response) => {
      beginStream(response);
      const details = {
        prompt_tokens_details: { cached_tokens: 5_000 },
        completion_tokens_details: { reasoning_tokens: -3 },
      };
      response.end(textEvent("hello") + STOP + usageEvent({ ...USAGE, ...details }) + DONE);
    });
    expect(await turnOf(app, "parts")).toMatchObject([
      { promptTokens: 1_000n, cachedPromptTokens: 1_000n, completionTokens: 200n, reasoningTokens: 0n },
    ]);
  });

  test("may be more than was held: it is charged as the provider says, and operators are told", async () => {
    const { app } = await appOf((response) => {
      beginStream(response);
      response.end(
        textEvent("hello") + STOP + usageEvent({ prompt_tokens: 100_000, completion_tokens: 50_000 }) + DONE,
      );
    });
    expect(await turnOf(app, "more")).toMatchObject([{ promptTokens: 100_000n, completionTokens: 50_000n }]);
    expect(await app.metrics()).toMatch(/^parley_calls_over_hold_total\{model="gpt-4o",.*\} 1$/m);
    expect(app.logs.where({ prompt_tokens: 100_000, completion_tokens: 50_000, level: "warn" })).toHaveLength(1);
  });

  test("is not over its hold where the provider counts what it was asked for", async () => {
    const { app } = await appOf((response) => {
      beginStream(response);
      response.end(textEvent("hello") + STOP + usageEvent({ prompt_tokens: 1, completion_tokens: 1 }) + DONE);
    });
    await turnOf(app, "less");
    expect(await app.metrics()).toMatch(/^parley_calls_over_hold_total\{model="gpt-4o",.*\} 0$/m);
  });

  test("is estimated at the hold where a server knows no bound and asks for tools without end", async () => {
    const argumentsJson = JSON.stringify({ text: "one two three ".repeat(5_000) });
    const { app, server } = await appOf((response) => {
      beginStream(response);
      const calls = [{ index: 0, id: "c1", type: "function", function: { name: "unknown", arguments: argumentsJson } }];
      response.write(event({ choices: [{ index: 0, delta: { tool_calls: calls } }] }));
      response.end(event({ choices: [{ index: 0, delta: {}, finish_reason: "tool_calls" }] }) + DONE);
    });
    const [row] = await turnOf(app, "endless");
    const { max_completion_tokens: bound } = (server.requests.find(({ body }) => body !== undefined)?.body ?? {}) as {
      max_completion_tokens: number;
    };
    expect(tokenizerFor("gpt-4o").countText(argumentsJson)).toBeGreaterThan(bound);
    expect(row).toMatchObject({ usageSource: UsageSource.TOKENIZER_ESTIMATE, completionTokens: BigInt(bound) });
  });
});

describe("attempts", () => {
  test("at each endpoint have a row each, and one that got no connection has none and holds nothing", async () => {
    const failing = await startModelServer((response) => {
      response.writeHead(500).end("{}");
    });
    const good = await startModelServer((response) => {
      beginStream(response);
      response.end(textEvent("hello") + STOP + usageEvent(USAGE) + DONE);
    });
    const endpoints = [
      { base_url: await deadBaseUrl(), model: "gpt-4-turbo" },
      { base_url: failing.baseUrl, model: "gpt-4o" },
      { base_url: good.baseUrl, model: "gpt-4o-mini" },
    ];
    const app = await startTestApp({
      redisUrl: redis.url,
      model: "gpt-4",
      yaml: JSON.stringify({ models: { "gpt-4": { endpoints } } }),
      env: { OPENAI_BASE_URL: good.baseUrl },
    });
    onTestFinished(() => app.close());
    const rows = await turnOf(app, "by the third way");
    expect(rows).toMatchObject([
      { model: "gpt-4o", outcome: CallOutcome.FAILED, completionTokens: 0n },
      { model: "gpt-4o-mini", outcome: CallOutcome.OK, usageSource: UsageSource.PROVIDER, completionTokens: 200n },
    ]);
    expect(
      [failing.requests, good.requests].map((all) => all.filter(({ path }) => path.endsWith("completions")).length),
    ).toEqual([1, 1]);
  });

  test("at nothing but dead endpoints cost nothing", async () => {
    const app = await startTestApp({
      redisUrl: redis.url,
      model: "gpt-4",
      env: { OPENAI_BASE_URL: await deadBaseUrl() },
    });
    onTestFinished(() => app.close());
    expect(await turnOf(app, "to nobody")).toEqual([]);
  });
});
