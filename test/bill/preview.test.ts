import { Code } from "@connectrpc/connect";
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { callerOf } from "../app/clients.ts";
import { refusalOf } from "../rpc/refusals.ts";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { callsOf, expectAddsUp, withAccounts } from "./bill.ts";

// PreviewChat says what the call then does, and neither holds nor spends anything.

const RATE_LIMIT = 3;

let redis: RedisServer;
let app: TestApp;
beforeAll(async () => {
  redis = await startRedisServer();
  const yaml = {
    agents: {
      plain: { model: "gpt-4o" },
      tooled: { model: "gpt-4o", tools: ["current_time"] },
      cheap: { model: "gpt-4o-mini" },
      dear: { model: "gpt-4" },
      closer: { model: "sim-terminate" },
    },
    teams: {
      plain: { agent: "plain" },
      tooled: { agent: "tooled" },
      // The dear one does not come first.
      round: { kind: "round_robin", agents: ["cheap", "dear"], max_rounds: 2 },
      picked: { kind: "selector", agents: ["cheap", "closer"], selector_model: "gpt-4", max_selector_attempts: 1 },
    },
    models: { "gpt-4": { endpoints: [{ model: "gpt-4" }] }, "sim-terminate": { endpoints: [{}] } },
    prices: { overrides: [{ model: "sim-terminate", priced_as: "gpt-4o-mini" }] },
  };
  app = await startTestApp({
    redisUrl: redis.url,
    yaml: JSON.stringify(yaml),
    env: { RATE_LIMIT: String(RATE_LIMIT), MAX_TOKENS: "4000" },
  });
});
afterAll(async () => {
  await app.close();
  await redis.stop();
});

/** All of Redis but what goes away by itself. */
async function contents(): Promise<Record<string, string>> {
  const client = new Redis(redis.url);
  try {
    const keys = (await client.keys("*")).filter((key) => !/^\{tenants\}|:leases$/.test(key));
    const dumps = await Promise.all(keys.map(async (key) => [key, (await client.dumpBuffer(key))?.toHex() ?? ""]));
    return Object.fromEntries(dumps) as Record<string, string>;
  } finally {
    client.disconnect();
  }
}

/** What a user's calls have used. */
async function tokensOf(userId: string): Promise<bigint> {
  const charges = (await expectAddsUp(redis)).filter((row) => row.userId === userId);
  return charges.reduce((sum, row) => sum + row.promptTokens + row.completionTokens, 0n);
}

interface Case {
  readonly name: string;
  readonly limits?: { readonly limitMicroUsd?: bigint; readonly limitTokens?: bigint; readonly dryRun?: boolean };
  /** Turns that the user has had. */
  readonly turnsBefore?: number;
  readonly request?: { readonly message?: string; readonly maxTokens?: number; readonly agentTeam?: string };
  readonly reason?: string;
}

const cases: readonly Case[] = [
  { name: "no budget" },
  { name: "an agent with tools", request: { agentTeam: "tooled" } },
  { name: "a session with a history", turnsBefore: 2 },
  { name: "room in money and tokens", limits: { limitMicroUsd: 1_000_000n, limitTokens: 4_000n } },
  { name: "one token short", limits: { limitTokens: 3_999n }, reason: "CALL_EXCEEDS_BUDGET" },
  { name: "one that asks for less", limits: { limitTokens: 3_999n }, request: { maxTokens: 3_999 } },
  { name: "no money at all", limits: { limitMicroUsd: 0n }, reason: "CALL_EXCEEDS_BUDGET" },
  { name: "tokens that are spent", turnsBefore: 1, limits: { limitTokens: 4_000n }, reason: "BUDGET_EXHAUSTED" },
  { name: "a dry run", limits: { limitMicroUsd: 1n, dryRun: true } },
  { name: "a rate that is used up", turnsBefore: RATE_LIMIT, reason: "RATE_LIMITED" },
  {
    name: "a message that does not fit",
    request: { message: "word ".repeat(1_900), maxTokens: 1_000 },
    reason: "TURN_TOKEN_BUDGET",
  },
];

describe("a preview agrees with the call", () => {
  test.each(cases)("with $name", async ({ name, limits, turnsBefore = 0, request: fields, reason }) => {
    const { chat, sessions } = callerOf(app);
    const userId = name;
    const { session } = await sessions.createSession({ userId });
    const request = {
      message: "how much?",
      userId,
      sessionId: session?.sessionId ?? "",
      agentTeam: "plain",
      ...fields,
    };
    for (let turn = 0; turn < turnsBefore; turn++) await chat.chat({ ...request, message: `earlier ${turn}` });
    await withAccounts(redis, async (accounts) => {
      if (limits === undefined) return;
      await accounts.setBudget("default", { scope: `user:${userId}`, period: "month", dryRun: false, ...limits });
    });
    await expectAddsUp(redis);
    const calls = app.simulated.callCount;
    const before = await contents();
    const preview = await chat.previewChat(request);
    expect(await contents()).toEqual(before);
    expect(app.simulated.callCount).toBe(calls);

    expect(preview.denial?.reason).toBe(reason);
    expect(preview.admitted).toBe(reason === undefined);
    expect(preview.headroom).toHaveLength(limits === undefined ? 0 : 1);
    const [headroom] = preview.headroom;
    if (limits?.limitTokens !== undefined) {
      expect(headroom?.leftTokens).toBe(limits.limitTokens - (await tokensOf(userId)));
    }

    if (reason !== undefined) {
      const refusal = await refusalOf(chat.chat(request));
      expect(refusal.findDetails(ErrorInfoSchema)).toMatchObject([{ reason }]);
      expect(refusal.code).toBe(Code.ResourceExhausted);
      expect(preview.denial?.message).toBe(refusal.rawMessage);
      expect(app.simulated.callCount).toBe(calls);
      return;
    }
    const reply = await chat.chat(request);
    expect(reply.finishReason).toBe(FinishReason.STOP);
    expect(reply.costMicroUsd).toBeLessThanOrEqual(preview.maxCostMicroUsd);
    const tools = fields?.agentTeam === "tooled";
    if (!tools) expect(preview.estimatedPromptTokens).toBe(BigInt(reply.tokenUsage?.promptTokens ?? 0));
    expect(preview.estimatedPromptTokens).toBeGreaterThanOrEqual(BigInt(reply.tokenUsage?.promptTokens ?? 0));
    // The bound that the model was asked for is the one that the preview priced.
    const call = callsOf(app.simulated.calls, request.message).at(-1);
    const bound = Number(call?.body.max_completion_tokens);
    const fromPrompt = Number(preview.estimatedPromptTokens) * 2.5 + bound * 10;
    if (!tools) expect(Number(preview.maxCostMicroUsd)).toBe(Math.round(fromPrompt));
  });

  test.each(["round", "picked"])("of all calls that team %s may make, the manager's included", async (agentTeam) => {
    const { chat } = callerOf(app);
    const request = { message: "how much?", userId: `of ${agentTeam}`, agentTeam };
    const preview = await chat.previewChat(request);
    const calls = app.simulated.callCount;
    const reply = await chat.chat(request);
    const made = app.simulated.calls.slice(calls);
    expect(made.length).toBeGreaterThan(1);
    expect(reply.costMicroUsd).toBeLessThanOrEqual(preview.maxCostMicroUsd);
    // 4,000 tokens of gpt-4, each at what an answer costs.
    expect(Number(preview.maxCostMicroUsd)).toBeGreaterThanOrEqual(4_000 * 60);
    expect(preview.estimatedPromptTokens).toBe(BigInt(made[0]?.promptTokens ?? 0));
    // What refuses the first call refuses the turn.
    const scope = `user:${request.userId}` as const;
    const limitTokens = agentTeam === "picked" ? 700n : 3_999n;
    await withAccounts(redis, (accounts) =>
      accounts.setBudget("default", { scope, period: "month", dryRun: false, limitTokens }),
    );
    const refusal = await refusalOf(chat.chat(request));
    expect((await chat.previewChat(request)).denial?.message).toBe(refusal.rawMessage);
  });

  test("of what is not there: a session, a team", async () => {
    const { chat } = callerOf(app);
    for (const request of [
      { message: "hello", userId: "u", sessionId: "nowhere" },
      { message: "hello", userId: "u", agentTeam: "nobody" },
    ]) {
      const [previewed, called] = await Promise.all([
        refusalOf(chat.previewChat(request)),
        refusalOf(chat.chat(request)),
      ]);
      expect([previewed.code, previewed.rawMessage]).toEqual([called.code, called.rawMessage]);
    }
  });

  test("of a session that is yet to be made, which each session's budget binds", async () => {
    const { chat } = callerOf(app);
    const budget = { scope: "session:*", period: "day", dryRun: false } as const;
    await withAccounts(redis, (accounts) => accounts.setBudget("default", { ...budget, limitTokens: 10n }));
    const request = { message: "hello", userId: "newcomer" };
    const preview = await chat.previewChat(request);
    const refusal = await refusalOf(chat.chat(request));
    expect(refusal.findDetails(ErrorInfoSchema)).toMatchObject([{ reason: "CALL_EXCEEDS_BUDGET" }]);
    expect(preview).toMatchObject({ admitted: false, denial: { reason: "CALL_EXCEEDS_BUDGET" } });
    expect(preview.headroom).toMatchObject([{ scope: "session", leftTokens: 10n }]);
    await withAccounts(redis, (accounts) => accounts.setBudget("default", budget));
  });

  test("is in no budget", async () => {
    await expectAddsUp(redis);
  });
});
