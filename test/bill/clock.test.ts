import { timestampMs } from "@bufbuild/protobuf/wkt";
import { expect, test, vi } from "vitest";
import { callerOf } from "../app/clients.ts";
import { type Parts, startParts } from "../app/parts.ts";
import { beginStream, DONE, event, STOP, startModelServer, textEvent } from "../providers/model-server.ts";
import { refusalOf } from "../rpc/refusals.ts";
import { startLyingClock } from "../support/lying-clock.ts";
import { expectAddsUp, rowsOf, withAccounts } from "./bill.ts";

// Clocks that step, and a month that ends amid a call. A call's time is Redis'. Needs Debian's faketime.

/** A model that answers when it is told to. */
async function startHeldModel() {
  const waiting: (() => void)[] = [];
  const server = await startModelServer(async (response) => {
    if (response.req.method === "GET") return void response.end("{}");
    await new Promise<void>((resolve) => waiting.push(resolve));
    beginStream(response);
    const usage = { prompt_tokens: 100, completion_tokens: 10 };
    response.end(textEvent("hello") + STOP + event({ choices: [], usage }) + DONE);
  });
  return {
    env: { OPENAI_BASE_URL: server.baseUrl },
    /** Resolves when so many calls wait. */
    waits: (count: number) => vi.waitFor(() => expect(waiting).toHaveLength(count), { timeout: 10_000 }),
    answer: () => {
      for (const go of waiting.splice(0)) go();
    },
  };
}

async function timeOf({ ask }: Parts): Promise<string> {
  const [seconds] = await ask((client) => client.time());
  return new Date(Number(seconds) * 1_000).toISOString();
}

test("a call that began in a month belongs to it, though it ends in the next", async () => {
  const clock = startLyingClock("@2026-11-30 23:50:00");
  const parts = await startParts({ env: clock.env });
  expect(await timeOf(parts)).toMatch(/^2026-11-30T23:5/);
  const model = await startHeldModel();
  const { chat } = callerOf(await parts.startService(model.env));
  await withAccounts(parts.redis, async (accounts) => {
    for (const period of ["hour", "day", "month"] as const) {
      const budget = { scope: "tenant:default", period, limitMicroUsd: 1_000_000n, dryRun: false } as const;
      await accounts.setBudget("default", budget);
    }
    const uses = async () =>
      (await accounts.budgets("default")).map(({ spentMicroUsd, heldMicroUsd }) => [spentMicroUsd, heldMicroUsd]);
    const old = chat.chat({ message: "amid the change", userId: "u" });
    await model.waits(1);
    const during = await uses();
    for (const [spent, held] of during) expect([spent, (held ?? 0n) > 0n]).toEqual([0n, true]);
    clock.set("@2026-12-01 00:10:00");
    expect(await timeOf(parts)).toMatch(/^2026-12-01T00:1/);
    // The new month is empty: nothing is held there.
    expect(await uses()).toEqual([
      [0n, 0n],
      [0n, 0n],
      [0n, 0n],
    ]);
    model.answer();
    const { costMicroUsd } = await old;
    expect(costMicroUsd).toBeGreaterThan(0n);
    const [row] = await expectAddsUp(parts.redis);
    expect(new Date(timestampMs(row?.holdTime ?? expect.fail())).toISOString()).toMatch(/^2026-11-30T23:5/);
    expect(await uses()).toEqual([
      [0n, 0n],
      [0n, 0n],
      [0n, 0n],
    ]);
    const next = chat.chat({ message: "in the new month", userId: "u" });
    await model.waits(1);
    model.answer();
    await next;
    await expectAddsUp(parts.redis);
    expect((await uses()).every(([spent]) => spent === costMicroUsd)).toBe(true);
  });
});

test.each(["+3600", "-3600"])(
  "Redis' clock steps by %s s amid a call: nothing is lost or charged twice",
  async (step) => {
    const clock = startLyingClock("+0");
    const parts = await startParts({ env: clock.env });
    const model = await startHeldModel();
    const { chat } = callerOf(await parts.startService(model.env));
    const calls = Array.from({ length: 4 }, (_, index) => chat.chat({ message: `step ${index}`, userId: "u" }));
    await model.waits(4);
    clock.set(step);
    const drift = Date.parse(await timeOf(parts)) - Date.now();
    expect(Math.abs(drift - Number(step) * 1_000)).toBeLessThan(60_000);
    const later = chat.chat({ message: "after the step", userId: "u" });
    await model.waits(5);
    model.answer();
    await Promise.all([...calls, later]);
    const charges = await expectAddsUp(parts.redis);
    expect(charges).toHaveLength(5);
    expect(charges.map(({ promptTokens }) => promptTokens)).toEqual([100n, 100n, 100n, 100n, 100n]);
  },
);

test("a service's own clock that is a day ahead changes neither price nor period nor cap", async () => {
  const parts = await startParts();
  const model = await startHeldModel();
  const { chat } = callerOf(await parts.startService({ ...startLyingClock("+86400").env, ...model.env }));
  const { maxCostMicroUsd } = await chat.previewChat({ message: "what time is it?", userId: "u" });
  await withAccounts(parts.redis, async (accounts) => {
    const budget = { scope: "user:u", period: "hour", limitMicroUsd: maxCostMicroUsd, dryRun: false } as const;
    await accounts.setBudget("default", budget);
  });
  const call = chat.chat({ message: "what time is it?", userId: "u" });
  await model.waits(1);
  await refusalOf(chat.chat({ message: "what time is it?", userId: "u" }));
  model.answer();
  const { costMicroUsd } = await call;
  await expectAddsUp(parts.redis);
  const [row] = await rowsOf(parts.redis);
  expect(row?.costMicroUsd).toBe(costMicroUsd);
  expect(Math.abs(timestampMs(row?.holdTime ?? expect.fail()) - Date.now())).toBeLessThan(60_000);
});
