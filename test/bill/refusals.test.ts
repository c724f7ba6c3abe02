import { Code, type ConnectError, createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { ErrorInfoSchema, QuotaFailureSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { callerOf, errorOf, finishOf, spoken, turnIdOf } from "../app/clients.ts";
import { refusalOf } from "../rpc/refusals.ts";
import { threeWires } from "../rpc/wires.ts";
import { eventually } from "../support/eventually.ts";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { callsOf, expectAddsUp, withAccounts } from "./bill.ts";

// What callers are told of budgets, and what budgets leave alone.

let redis: RedisServer;
let app: TestApp;
beforeAll(async () => {
  redis = await startRedisServer();
  const agents = {
    cheap: { model: "gpt-4o" },
    dear: { model: "gpt-4" },
    endless: { model: "sim-5000x5" },
    silent: { model: "sim-stall" },
  };
  const yaml = {
    agents,
    teams: {
      cheap: { agent: "cheap" },
      both: { kind: "round_robin", agents: ["cheap", "dear"], max_consecutive_auto_reply: 1 },
      endless: { agent: "endless" },
      silent: { agent: "silent" },
    },
    // It would open at once.
    breaker: { min_calls: 1, error_threshold_percent: 1 },
  };
  app = await startTestApp({ redisUrl: redis.url, yaml: JSON.stringify(yaml) });
});
afterAll(async () => {
  await app.close();
  await redis.stop();
});

/** Gives a user a budget, and returns the user. */
async function userWith(
  userId: string,
  limits: { limitMicroUsd?: bigint; limitTokens?: bigint; dryRun?: boolean },
): Promise<string> {
  await withAccounts(redis, async (accounts) => {
    await accounts.setBudget("default", { scope: `user:${userId}`, period: "hour", dryRun: false, ...limits });
  });
  return userId;
}

/** All that a refusal says. */
function told(error: ConnectError) {
  return {
    code: Code[error.code],
    message: error.rawMessage,
    info: error.findDetails(ErrorInfoSchema).map(({ reason, metadata }) => ({ reason, metadata })),
    violations: error
      .findDetails(QuotaFailureSchema)
      .flatMap(({ violations }) => violations.map(({ subject, description }) => ({ subject, description }))),
    retryMs: error.findDetails(RetryInfoSchema).map(({ retryDelay }) => Number(retryDelay?.seconds) * 1_000),
  };
}

describe.each(threeWires)("a first call that no budget admits, on $name", (wire) => {
  test("is RESOURCE_EXHAUSTED with scope, limit, spent, held and reset, and the same for who asks again", async () => {
    const { chat, ...caller } = callerOf(app, wire);
    const { maxCostMicroUsd } = await chat.previewChat({ message: "hello", userId: "u", agentTeam: "cheap" });
    const userId = await userWith(`refused by ${wire.name}`, { limitMicroUsd: maxCostMicroUsd });
    const request = { userId, agentTeam: "cheap", message: "hello" };
    await chat.chat(request);
    await expectAddsUp(redis);
    const left = (await chat.previewChat(request)).headroom[0]?.leftMicroUsd ?? 0n;
    const spent = maxCostMicroUsd - left;
    expect(spent).toBeGreaterThan(0n);
    const before = app.simulated.callCount;

    const idempotencyKey = crypto.randomUUID();
    const reading = caller.stream("", "hello", "cheap", { userId, idempotencyKey });
    const refusal = told(await errorOf(reading));
    expect(refusal).toMatchObject({
      code: "ResourceExhausted",
      info: [{ reason: "BUDGET_EXHAUSTED" }],
      violations: [{ subject: `user:${userId}` }],
    });
    const reset = new Date(Math.ceil(Date.now() / 3_600_000) * 3_600_000).toISOString();
    expect(refusal.violations[0]?.description).toBe(
      `hour budget: limit ${maxCostMicroUsd} micro_usd, spent ${spent}, held 0, wanted ${maxCostMicroUsd}, resets ${reset}`,
    );
    expect(refusal.retryMs[0]).toBeGreaterThan(0);
    expect(refusal.retryMs[0]).toBeLessThanOrEqual(3_600_000);

    const resumed = told(await errorOf(caller.resume(turnIdOf(reading))));
    const retried = told(await refusalOf(chat.chat({ ...request, idempotencyKey, sessionId: "" })));
    expect(resumed).toEqual(refusal);
    expect(retried).toEqual(refusal);
    expect(app.simulated.callCount).toBe(before);
  });
});

test("a call that is more than a whole budget is told that no retry helps", async () => {
  const userId = await userWith("never", { limitTokens: 10n });
  const refusal = told(
    await refusalOf(createClient(ChatService, threeWires[1].transport(app.url)).chat({ userId, message: "hello" })),
  );
  expect(refusal).toMatchObject({
    code: "ResourceExhausted",
    info: [{ reason: "CALL_EXCEEDS_BUDGET" }],
    violations: [{ subject: "user:never", description: expect.stringMatching(/limit 10 tokens, spent 0, held 0, /) }],
    retryMs: [],
  });
});

test("a later call that no budget admits ends the turn well, with what was said", async () => {
  const { chat, ...caller } = callerOf(app);
  // What the team's first call may cost, and no more.
  const first = await chat.previewChat({ message: "hello", userId: "u", agentTeam: "cheap" });
  const userId = await userWith("second refused", { limitMicroUsd: first.maxCostMicroUsd });
  const reading = caller.stream("", "hello", "both", { userId });
  expect(await reading.end).toBeUndefined();
  expect(finishOf(reading.events)).toBe(FinishReason.BUDGET_EXHAUSTED);
  expect(reading.text()).toContain("hello");
  const rows = (await expectAddsUp(redis)).filter((row) => row.userId === userId);
  expect(rows).toMatchObject([{ agent: "cheap", usageSource: UsageSource.PROVIDER }]);

  const unary = await chat.chat({
    message: "hello",
    userId: await userWith("second refused too", { limitMicroUsd: first.maxCostMicroUsd }),
    agentTeam: "both",
  });
  expect(unary).toMatchObject({ finishReason: FinishReason.BUDGET_EXHAUSTED, response: reading.text() });
});

test("a budget with dry_run refuses nobody and counts whom it would have", async () => {
  const userId = await userWith("dry", { limitMicroUsd: 1n, limitTokens: 1n, dryRun: true });
  const { chat } = callerOf(app);
  await chat.chat({ message: "hello", userId, agentTeam: "cheap" });
  await chat.chat({ message: "hello", userId, agentTeam: "cheap" });
  await withAccounts(redis, async (accounts) => {
    const budget = (await accounts.budgets("default")).find(({ scope }) => scope?.scope.value === userId);
    expect(budget).toMatchObject({ dryRun: true, wouldRefuse: 2n, heldMicroUsd: 0n });
    expect(budget?.spentMicroUsd).toBeGreaterThan(1n);
  });
});

test("an answer that goes beyond its bound is cut off at the model, with the text so far and its usage", async () => {
  const { chat, ...caller } = callerOf(app);
  const message = "say more than you may";
  const reading = caller.stream("", message, "endless", { maxTokens: 900 });
  expect(await reading.end).toBeUndefined();
  expect(finishOf(reading.events)).toBe(FinishReason.TOKEN_BUDGET);
  const [call] = callsOf(app.simulated.calls, message);
  await eventually(() => expect(call?.state).toBe("closed_by_client"));
  const bound = Number(call?.body.max_completion_tokens);
  const saidTokens = Buffer.byteLength(reading.text());
  expect(saidTokens).toBeGreaterThan(bound - 20);
  expect(saidTokens).toBeLessThanOrEqual(bound);
  const rows = (await expectAddsUp(redis)).filter(({ turnId }) => turnId === turnIdOf(reading));
  expect(rows).toMatchObject([
    {
      completionTokens: BigInt(saidTokens),
      promptTokens: BigInt(call?.promptTokens ?? 0),
      usageSource: UsageSource.TOKENIZER_ESTIMATE,
    },
  ]);
  const { turn } = await chat.getTurn({ turnId: turnIdOf(reading) });
  expect(turn).toMatchObject({ finishReason: FinishReason.TOKEN_BUDGET, costMicroUsd: rows[0]?.costMicroUsd });
});

test("neither refusals of budgets nor cancels open a breaker", async () => {
  const { chat, ...caller } = callerOf(app);
  const userId = await userWith("poor", { limitMicroUsd: 1n });
  for (let round = 0; round < 5; round++) {
    await refusalOf(chat.chat({ message: "hello", userId, agentTeam: "cheap" }));
    const reading = caller.stream("", `cancel me ${round}`, "endless");
    await spoken(reading);
    await chat.cancelTurn({ turnId: turnIdOf(reading) });
    await reading.end;
    const mute = caller.stream("", `and me ${round}`, "silent");
    onTestFinished(async () => void (await mute.end));
    await eventually(() => expect(callsOf(app.simulated.calls, `and me ${round}`)).toHaveLength(1));
    await chat.cancelTurn({ turnId: turnIdOf(mute) });
  }
  expect(app.logs.where({ msg: "model breaker changed" })).toEqual([]);
  expect((await chat.chat({ message: "hello", userId: "rich", agentTeam: "cheap" })).finishReason).toBe(
    FinishReason.STOP,
  );
  await expectAddsUp(redis);
});
