import { afterAll, beforeAll, expect, onTestFinished, test, vi } from "vitest";
import type { UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import { callerOf } from "../app/clients.ts";
import { beginStream, DONE, event, STOP, startModelServer, textEvent } from "../providers/model-server.ts";
import { eventually } from "../support/eventually.ts";
import { startLyingClock } from "../support/lying-clock.ts";
import { startTestApp } from "../support/parley-app.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { expectAddsUp, rowsOf } from "./bill.ts";

// A call has the price of its hold's time.

let redis: RedisServer;
beforeAll(async () => {
  redis = await startRedisServer();
});
afterAll(() => redis.stop());

const USAGE = { prompt_tokens: 1_000, completion_tokens: 100 };

async function chargeOf(userId: string, on = redis): Promise<UsageRecord> {
  return await vi.waitFor(
    async () => {
      const [row, ...others] = (await rowsOf(on)).filter((one) => one.userId === userId);
      expect(others).toEqual([]);
      expect(row).toBeDefined();
      return row as UsageRecord;
    },
    { timeout: 10_000 },
  );
}

test("a price that changes at T leaves what came before, and the call that is under way then", async () => {
  let answer: () => void = () => undefined;
  let holds = false;
  const server = await startModelServer(async (response) => {
    if (response.req.method === "GET") return void response.end("{}");
    if (holds) {
      await new Promise<void>((resolve) => {
        answer = resolve;
      });
    }
    beginStream(response);
    response.end(textEvent("hello") + STOP + event({ choices: [], usage: USAGE }) + DONE);
  });
  // The hold's time is Redis': the price changes when its clock steps over T, short of the time after which a call is lost.
  const clock = startLyingClock("+0");
  const steppingRedis = await startRedisServer({ env: clock.env });
  onTestFinished(() => steppingRedis.stop());
  const changeMs = Date.now() + 45_000;
  const overrides = [
    { model: "gpt-4o", input_usd_per_million: 1, output_usd_per_million: 10 },
    {
      model: "gpt-4o",
      valid_from: new Date(changeMs).toISOString(),
      input_usd_per_million: 3,
      output_usd_per_million: 30,
    },
  ];
  const app = await startTestApp({
    redisUrl: steppingRedis.url,
    model: "gpt-4o",
    yaml: JSON.stringify({ prices: { overrides } }),
    env: { OPENAI_BASE_URL: server.baseUrl },
  });
  onTestFinished(() => app.close());
  const { chat } = callerOf(app);
  await chat.chat({ message: "before", userId: "before" });
  holds = true;
  const amid = chat.chat({ message: "amid", userId: "amid" });
  amid.catch(() => undefined);
  await eventually(() => expect(server.requests.filter(({ path }) => path.endsWith("/completions"))).toHaveLength(2));
  clock.set("+90");
  holds = false;
  answer();
  const reply = await amid;
  await chat.chat({ message: "after", userId: "after" });

  const [before, during, after] = await Promise.all(
    ["before", "amid", "after"].map((user) => chargeOf(user, steppingRedis)),
  );
  expect([before, during, after].map((row) => row?.costMicroUsd)).toEqual([2_000n, 2_000n, 6_000n]);
  expect(reply.costMicroUsd).toBe(2_000n);
  expect(during?.priceVersion).toBe(before?.priceVersion);
  expect(after?.priceVersion).not.toBe(before?.priceVersion);
  await expectAddsUp(steppingRedis);
});

test("a model that nobody prices is not free: it has the default price, and no price version", async () => {
  const yaml = { prices: { default: { input_usd_per_million: 7, output_usd_per_million: 70 } } };
  const app = await startTestApp({ redisUrl: redis.url, model: "acme-1", yaml: JSON.stringify(yaml) });
  onTestFinished(() => app.close());
  await callerOf(app).chat.chat({ message: "what do you cost?", userId: "unpriced" });
  const row = await chargeOf("unpriced");
  expect(row.priceVersion).toBe("");
  expect(row.promptTokens).toBeGreaterThan(0n);
  expect(row.costMicroUsd).toBe(row.promptTokens * 7n + row.completionTokens * 70n);
  await expectAddsUp(redis);
});
