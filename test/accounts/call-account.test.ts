import { describe, expect, test } from "vitest";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { CallOutcome } from "../../gen/parley/usage/v1/usage_record_pb.js";
import { type CallEnd, type CallFacts, createCallAccount } from "../../src/accounts/call-account.ts";
import { createMemoryAccountStore } from "../../src/accounts/memory-account-store.ts";
import type { PriceRates } from "../../src/accounts/model-price.ts";
import { createPriceTable } from "../../src/accounts/price-table.ts";
import { ledgerOf } from "../support/ledger.ts";
import { budgetOf, checkAccount, refusalOf } from "./calls.ts";

const tenant = "acme";
const CHANGE = Date.parse("2026-12-01T00:00:00Z");
const rates = (input: number): PriceRates => ({
  input,
  cachedInput: input / 2,
  output: 2 * input,
  reasoning: 2 * input,
});
const prices = createPriceTable({
  overrides: [
    { model: "m", validFromMs: 0, price: rates(1_000_000) },
    { model: "m", validFromMs: CHANGE, price: rates(3_000_000) },
  ],
  defaultPrice: rates(50_000_000),
});

/** An account whose own clock and whose process's clock can be set. */
function setUp(timeMs: number) {
  const clocks = { storeMs: timeMs, processMs: timeMs };
  const store = createMemoryAccountStore({ now: () => clocks.storeMs });
  return { clocks, store, account: createCallAccount({ store, prices, now: () => clocks.processMs }) };
}

function facts(callId: string, more: Partial<CallFacts> = {}): CallFacts {
  return {
    tenant,
    team: "",
    userId: "ann",
    useCase: "",
    sessionId: "s1",
    callId,
    turnId: "t1",
    agent: "assistant",
    model: "m",
    version: "0.3.0",
    promptTokens: 100,
    maxCompletionTokens: 50,
    callMs: 60_000,
    ...more,
  };
}

const ended = (more: Partial<CallEnd> = {}): CallEnd => ({
  promptTokens: 100,
  cachedPromptTokens: 0,
  completionTokens: 10,
  reasoningTokens: 0,
  source: UsageSource.PROVIDER,
  outcome: CallOutcome.OK,
  ...more,
});

describe("a priced call", () => {
  test("holds its largest cost, and is charged what it used", async () => {
    const { store, account } = setUp(CHANGE - 60_000);
    const call = facts("c1");
    const held = await account.hold(call);
    expect(held).toMatchObject({ state: "held", heldMicroUsd: 200n, holdTimeMs: CHANGE - 60_000 });
    expect(await store.start({ tenant, callId: "c1" }, "me")).toBe("started");
    const row = account.rowOf(call, ended(), held.holdTimeMs);
    expect(row).toMatchObject({
      recordId: "c1",
      costMicroUsd: 120n,
      priceVersion: "config always 1000000/500000/2000000",
    });
    expect(await store.settle(row)).toMatchObject({ state: "settled", record: row });
    await checkAccount(store, tenant, { held: 0n });
  });

  test("has the price of its hold, though a dearer one holds when it ends", async () => {
    const { store, account, clocks } = setUp(CHANGE - 1);
    const call = facts("c1");
    const held = await account.hold(call);
    await store.start({ tenant, callId: "c1" }, "me");
    clocks.storeMs = clocks.processMs = CHANGE + 5_000;
    await store.settle(account.rowOf(call, ended(), held.holdTimeMs));
    expect(await ledgerOf(store, tenant)).toMatchObject([{ costMicroUsd: 120n }]);
    const later = await account.hold(facts("c2"));
    expect(later).toMatchObject({ heldMicroUsd: 600n });
  });

  test.each([-3_600_000, 3_600_000])(
    "has the price of the store's clock, though the process's is off by %d ms",
    async (offMs) => {
      for (const storeMs of [CHANGE - 1, CHANGE]) {
        const { account, clocks } = setUp(storeMs);
        clocks.processMs = storeMs + offMs;
        expect(await account.hold(facts("c1"))).toMatchObject({ heldMicroUsd: storeMs < CHANGE ? 200n : 600n });
      }
    },
  );

  test("belongs to the month of its hold, though it ends in the next", async () => {
    const { store, account, clocks } = setUp(CHANGE - 1);
    await store.setBudget(tenant, { scope: "user:ann", period: "month", limitMicroUsd: 200n, dryRun: false });
    const call = facts("c1");
    const held = await account.hold(call);
    await store.start({ tenant, callId: "c1" }, "me");
    clocks.storeMs = clocks.processMs = CHANGE + 10;
    expect(await budgetOf(store, tenant)).toMatchObject({ heldMicroUsd: 0n, spentMicroUsd: 0n });
    await store.settle(account.rowOf(call, ended(), held.holdTimeMs));
    expect(await budgetOf(store, tenant)).toMatchObject({ spentMicroUsd: 0n });
    clocks.storeMs = CHANGE - 1;
    expect(await budgetOf(store, tenant)).toMatchObject({ heldMicroUsd: 0n, spentMicroUsd: 120n });
  });

  test("is not admitted twice by a clock that steps back", async () => {
    const { store, account, clocks } = setUp(CHANGE - 10_000);
    await store.setBudget(tenant, { scope: "user:ann", period: "hour", limitMicroUsd: 200n, dryRun: false });
    await account.hold(facts("c1"));
    clocks.storeMs -= 3_600_000;
    await account.hold(facts("c2"));
    clocks.storeMs += 3_600_000;
    await refusalOf(account.hold(facts("c3")));
  });

  test("of a model that nobody prices is charged the default price, and its row says that it is unpriced", async () => {
    const { account } = setUp(CHANGE);
    const call = facts("c1", { model: "llama" });
    const held = await account.hold(call);
    expect(held).toMatchObject({ heldMicroUsd: 10_000n });
    expect(account.rowOf(call, ended(), held.holdTimeMs)).toMatchObject({ costMicroUsd: 6_000n, priceVersion: "" });
  });

  test("whose provider counts nonsense has a row that can stand", () => {
    const { account } = setUp(CHANGE);
    const end = ended({
      promptTokens: Number.NaN,
      cachedPromptTokens: 7,
      completionTokens: 1e30,
      reasoningTokens: -4.5,
    });
    expect(account.rowOf(facts("c1"), end, CHANGE)).toMatchObject({
      promptTokens: 0n,
      cachedPromptTokens: 0n,
      completionTokens: 2_147_483_647n,
      reasoningTokens: 0n,
    });
  });

  test("is previewed as it will be held", async () => {
    const { store, account } = setUp(CHANGE);
    await store.setBudget(tenant, { scope: "user:ann", period: "day", limitMicroUsd: 700n, dryRun: false });
    const preview = await account.preview(facts("c1"));
    expect(preview).toMatchObject({ maxCostMicroUsd: 600n, headroom: [{ scope: "user", leftMicroUsd: 700n }] });
    expect(preview.refusal).toBeUndefined();
    await account.hold(facts("c1"));
    const second = await account.preview(facts("c2"));
    expect(second.refusal?.reason).toBe("BUDGET_EXHAUSTED");
    await refusalOf(account.hold(facts("c2")));
  });
});

describe("the embedded account after its time", () => {
  test("has dropped holds, counters, calls and rows", async () => {
    const { store, account, clocks } = setUp(CHANGE);
    await store.setBudget(tenant, { scope: "user:ann", period: "day", limitMicroUsd: 700n, dryRun: false });
    await account.hold(facts("c1"));
    clocks.storeMs += 29_999;
    expect(await budgetOf(store, tenant)).toMatchObject({ heldMicroUsd: 600n });
    clocks.storeMs += 1;
    expect(await budgetOf(store, tenant)).toMatchObject({ heldMicroUsd: 0n });
    const held = await account.hold(facts("c2"));
    await store.settle(account.rowOf(facts("c2"), ended(), held.holdTimeMs));
    expect(await ledgerOf(store, tenant)).toHaveLength(1);
    clocks.storeMs += 24 * 3_600_000;
    expect(await store.find({ tenant, callId: "c2" })).toBeUndefined();
    expect(await store.settle(account.rowOf(facts("c2"), ended(), held.holdTimeMs))).toEqual({ state: "forgotten" });
    clocks.storeMs += 62 * 24 * 3_600_000;
    expect(await ledgerOf(store, tenant)).toEqual([]);
  });
});
