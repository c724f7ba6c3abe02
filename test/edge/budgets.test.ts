import { Code } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { reasonOf } from "../../client/client.ts";
import { QuotaFailureSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { type SimulatedModel, startSimulatedModel } from "../../src/providers/simulated-model.ts";
import { callerOf, errorOf, spoken, turnIdOf } from "../app/clients.ts";
import { expectAddsUp, withAccounts } from "../bill/bill.ts";
import { refusalOf } from "../rpc/refusals.ts";
import { wires } from "../rpc/wires.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { buildEdge, type EdgeBundle, type EdgeWorker, startWorker } from "./worker.ts";

// Holds, budgets and the ledger at the edge, in real workerd on a real Redis.

let bundle: EdgeBundle;
let model: SimulatedModel;
let redis: RedisServer;
let worker: EdgeWorker;
beforeAll(async () => {
  bundle = await buildEdge();
  model = await startSimulatedModel({ chunkDelayMs: 20 });
  redis = await startRedisServer();
  const bindings = { OPENAI_BASE_URL: model.baseUrl, REDIS_URL: redis.url, MODEL: "gpt-4o", LOG_LEVEL: "warn" };
  worker = await startWorker(bundle, bindings);
});
afterAll(async () => {
  await worker?.stop();
  await redis?.stop();
  await model?.close();
  await bundle?.remove();
});

const edgeWires = wires.filter(({ protocol, httpVersion }) => protocol !== "grpc" && httpVersion === "1.1");

describe.each(edgeWires)("by $name", (wire) => {
  test("a budget is spent to its end, then refuses with its figures, and the ledger adds up", async () => {
    const userId = `spends by ${wire.name}`;
    const { chat, ...edge } = callerOf(worker, wire);
    const { maxCostMicroUsd } = await chat.previewChat({ message: "hello", userId });
    expect(maxCostMicroUsd).toBeGreaterThan(0n);
    await withAccounts(redis, async (accounts) => {
      const limits = { period: "hour", dryRun: false, limitMicroUsd: maxCostMicroUsd } as const;
      await accounts.setBudget("default", { scope: `user:${userId}`, ...limits });
    });
    const reply = await chat.chat({ message: "hello", userId });
    expect(reply.costMicroUsd).toBeGreaterThan(0n);
    const calls = model.callCount;
    for (const refusal of [
      await refusalOf(chat.chat({ message: "hello", userId })),
      await errorOf(edge.stream("", "hello", "", { userId })),
    ]) {
      expect(refusal.code).toBe(Code.ResourceExhausted);
      expect(reasonOf(refusal)).toBe("BUDGET_EXHAUSTED");
      const [failure] = refusal.findDetails(QuotaFailureSchema);
      expect(failure?.violations).toMatchObject([{ subject: `user:${userId}` }]);
      expect(failure?.violations[0]?.description).toContain(`spent ${reply.costMicroUsd}, held 0`);
      expect(refusal.findDetails(RetryInfoSchema)).toHaveLength(1);
    }
    expect(model.callCount).toBe(calls);
    const rows = (await expectAddsUp(redis)).filter((row) => row.userId === userId);
    expect(rows).toMatchObject([{ usageSource: UsageSource.PROVIDER, costMicroUsd: reply.costMicroUsd }]);
  });

  test("a call that its client leaves is charged, and nothing stays held", async () => {
    const userId = `leaves by ${wire.name}`;
    const gone = new AbortController();
    const message = "a long story ".repeat(20);
    const reading = callerOf(worker, wire).stream("", message, "", { userId }, { signal: gone.signal });
    await spoken(reading);
    gone.abort();
    await reading.end;
    const rows = (await expectAddsUp(redis)).filter((row) => row.userId === userId);
    expect(rows).toMatchObject([{ turnId: turnIdOf(reading), usageSource: UsageSource.TOKENIZER_ESTIMATE }]);
    expect(rows[0]?.costMicroUsd).toBeGreaterThan(0n);
  });
});
