import { Code, ConnectError } from "@connectrpc/connect";
import { expect, onTestFinished, test, vi } from "vitest";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { callerOf } from "../app/clients.ts";
import { startParts } from "../app/parts.ts";
import { beginStream, DONE, event, STOP, startModelServer, textEvent } from "../providers/model-server.ts";
import { expectAddsUp, withAccounts } from "./bill.ts";

// No cap is ever crossed, whoever races for it.

/** How a call ended: `ok`, or the reason of its refusal. */
async function outcomeOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return "ok";
  } catch (error) {
    const refusal = ConnectError.from(error);
    return `${Code[refusal.code]} ${refusal.findDetails(ErrorInfoSchema)[0]?.reason}`;
  }
}

test("two replicas race for the last cent: one call gets it", async () => {
  const { redis, startTwo, model } = await startParts();
  const [a, b] = (await startTwo()).map((service) => callerOf(service).chat);
  if (a === undefined || b === undefined) throw new Error("two were started");
  const request = (userId: string) => ({ message: "the last cent", userId });
  const { maxCostMicroUsd: limitMicroUsd } = await a.previewChat(request("somebody"));
  const users = Array.from({ length: 12 }, (_, index) => `racer-${index}`);
  await withAccounts(redis, async (accounts) => {
    await accounts.setBudget("default", { scope: "user:*", period: "month", limitMicroUsd, dryRun: false });
  });
  const before = model.callCount;
  const races = await Promise.all(
    users.map(async (userId) => {
      const ends = await Promise.all([outcomeOf(a.chat(request(userId))), outcomeOf(b.chat(request(userId)))]);
      return ends.toSorted();
    }),
  );
  for (const ends of races) expect(ends).toEqual(["ResourceExhausted BUDGET_EXHAUSTED", "ok"]);
  expect(model.callCount - before).toBe(users.length);
  expect(await expectAddsUp(redis)).toHaveLength(users.length);
});

test("of 200 calls at once no more are made than the cap affords, and no more is spent", async () => {
  const AFFORDS = 7;
  const { redis, startTwo } = await startParts();
  let answer: () => void = () => undefined;
  const decided = new Promise<void>((resolve) => {
    answer = resolve;
  });
  onTestFinished(() => answer());
  const server = await startModelServer(async (response) => {
    // The probe of the readiness check wants no completion.
    if (response.req.method === "GET") return void response.end("{}");
    await decided;
    const { max_completion_tokens: bound } = (server.requests.at(-1)?.body ?? {}) as { max_completion_tokens: number };
    beginStream(response);
    // As much as it may.
    const usage = { prompt_tokens: 30, completion_tokens: bound };
    response.end(textEvent("hello") + STOP + event({ choices: [], usage }) + DONE);
  });
  const callers = (await startTwo({ OPENAI_BASE_URL: server.baseUrl })).map((service) => callerOf(service).chat);
  const [first] = callers;
  if (first === undefined) throw new Error("two were started");
  const request = { message: "me too", userId: "crowd" };
  const { maxCostMicroUsd } = await first.previewChat(request);
  const limitMicroUsd = maxCostMicroUsd * BigInt(AFFORDS) + maxCostMicroUsd / 2n;
  await withAccounts(redis, async (accounts) => {
    const budget = async () => {
      const [found] = await accounts.budgets("default");
      return found ?? expect.fail("the budget is gone");
    };
    await accounts.setBudget("default", { scope: "tenant:default", period: "day", limitMicroUsd, dryRun: false });
    let refused = 0;
    const calls = Array.from({ length: 200 }, async (_, index) => {
      const end = await outcomeOf((callers[index % 2] ?? first).chat(request));
      if (end !== "ok") refused++;
      return end;
    });
    const asked = (): number => server.requests.filter(({ path }) => path.endsWith("/completions")).length;
    await vi.waitFor(
      async () => {
        const { spentMicroUsd, heldMicroUsd } = await budget();
        expect(spentMicroUsd + heldMicroUsd).toBeLessThanOrEqual(limitMicroUsd);
        expect(spentMicroUsd).toBe(0n);
        expect(asked() + refused).toBe(200);
      },
      { timeout: 40_000, interval: 100 },
    );
    expect(asked()).toBe(AFFORDS);
    answer();
    const ends = await Promise.all(calls);
    expect(
      Object.fromEntries(
        Map.groupBy(ends, (end) => end)
          .entries()
          .map(([end, all]) => [end, all.length]),
      ),
    ).toEqual({
      ok: AFFORDS,
      "ResourceExhausted BUDGET_EXHAUSTED": 200 - AFFORDS,
    });
    const charges = await expectAddsUp(redis);
    expect(charges).toHaveLength(AFFORDS);
    const { spentMicroUsd } = await budget();
    expect(spentMicroUsd).toBe(charges.reduce((sum, { costMicroUsd }) => sum + costMicroUsd, 0n));
    expect(spentMicroUsd).toBeLessThanOrEqual(limitMicroUsd);
  });
});
