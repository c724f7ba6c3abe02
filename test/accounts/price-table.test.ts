import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { BASE_TABLE_VERSION } from "../../src/accounts/base-prices.ts";
import { costMicroUsd, largestCostMicroUsd, type PriceRates } from "../../src/accounts/model-price.ts";
import { createPriceTable, type PriceOverride } from "../../src/accounts/price-table.ts";

const defaultPrice: PriceRates = {
  input: 30_000_000,
  cachedInput: 30_000_000,
  output: 60_000_000,
  reasoning: 60_000_000,
};
const NOW = Date.parse("2026-11-24T12:00:00Z");

function table(overrides: readonly PriceOverride[] = [], models: readonly string[] = []) {
  return createPriceTable({ overrides, defaultPrice, models });
}

function counts(promptTokens: number, completionTokens: number, { cached = 0, reasoning = 0 } = {}) {
  return { promptTokens, completionTokens, cachedPromptTokens: cached, reasoningTokens: reasoning };
}

describe("the base table", () => {
  test("is of the version that package.json names", () => {
    const text = readFileSync(join(import.meta.dirname, "../../package.json"), "utf8");
    const { dependencies } = JSON.parse(text) as { dependencies: Record<string, string> };
    expect(dependencies["@pydantic/genai-prices"]).toBe(BASE_TABLE_VERSION);
  });

  test.each([
    ["gpt-4", counts(1_000, 500), 60_000n],
    ["gpt-4o", counts(1_000, 500), 7_500n],
    ["gpt-4o", counts(1_000, 500, { cached: 1_000 }), 6_250n],
    ["gpt-4o-2024-08-06", counts(1_000, 500), 7_500n],
    ["claude-sonnet-4-20250514", counts(1_000, 0), 3_000n],
    ["anthropic/claude-sonnet-4-20250514", counts(1_000, 0), 3_000n],
  ])("prices %s, %o, at %d micro USD", (model, tokens, expected) => {
    const price = table().at(model, NOW);
    expect(price.version).toMatch(/^genai-prices 0\.1\.8 [a-z]+\/./);
    expect(costMicroUsd(price, tokens)).toBe(expected);
  });

  test("has what a model cost before, and until when", () => {
    const cut = Date.parse("2025-06-10");
    const before = table().at("o3", cut - 1);
    const after = table().at("o3", cut);
    expect([before.untilMs, after.fromMs, after.untilMs]).toEqual([cut, cut, Number.MAX_SAFE_INTEGER]);
    expect(costMicroUsd(before, counts(1_000_000, 0))).toBe(10_000_000n);
    expect(costMicroUsd(after, counts(1_000_000, 0))).toBe(2_000_000n);
    expect(before.version).not.toBe(after.version);
    expect(after.version).toBe("genai-prices 0.1.8 openai/o3 from 2025-06-10");
  });

  test("prices long prompts higher where the provider does", () => {
    const price = table().at("gemini-2.5-pro", NOW);
    expect(costMicroUsd(price, counts(200_000, 0))).toBe(250_000n);
    expect(costMicroUsd(price, counts(200_001, 0))).toBe(500_003n);
    expect(largestCostMicroUsd(price, { promptTokens: 300_000, maxCompletionTokens: 0 })).toBe(750_000n);
  });

  test("has prices that change with the hour", () => {
    const night = table().at("deepseek-chat", Date.parse("2026-11-24T20:00:00Z"));
    const day = table().at("deepseek-chat", Date.parse("2026-11-24T12:00:00Z"));
    expect(costMicroUsd(day, counts(1_000_000, 0))).toBe(270_000n);
    expect(costMicroUsd(night, counts(1_000_000, 0))).toBe(135_000n);
    expect(day.untilMs - day.fromMs).toBe(60_000);
  });

  test("is read without a word on the console", () => {
    const warn = vi.spyOn(console, "warn").mockImplementation(() => undefined);
    for (const model of ["gpt-4", "gpt-5", "o3", "claude-opus-4-1", "gemini-2.5-pro", "whisper-1", "sonar"]) {
      table().at(model, NOW);
    }
    expect(warn).not.toHaveBeenCalled();
    warn.mockRestore();
  });
});

describe("a model that nobody prices", () => {
  test.each(["llama3.1", "sim-slow", "", "whisper-1"])("%s has the default price and no version", (model) => {
    const price = table().at(model, NOW);
    expect(price.version).toBe("");
    expect(costMicroUsd(price, counts(1, 1))).toBe(90n);
  });
});

describe("an override", () => {
  const changed = Date.parse("2026-12-01");
  const rates = (input: number): PriceRates => ({
    input,
    cachedInput: input / 2,
    output: 4 * input,
    reasoning: 4 * input,
  });
  const overrides: readonly PriceOverride[] = [
    { model: "gpt-4o", validFromMs: changed, price: rates(1_000_000) },
    { model: "mine", validFromMs: 0, price: rates(2_000_000) },
    { model: "mine", validFromMs: changed, price: rates(4_000_000) },
    { model: "deployment-7", validFromMs: 0, price: { pricedAs: "gpt-4o" } },
  ];

  test("holds from its date on, and leaves what came before", () => {
    const prices = table(overrides);
    expect(prices.at("gpt-4o", changed - 1).untilMs).toBe(changed);
    expect(costMicroUsd(prices.at("gpt-4o", changed - 1), counts(1_000, 0))).toBe(2_500n);
    expect(costMicroUsd(prices.at("gpt-4o", changed), counts(1_000, 0))).toBe(1_000n);
    expect(costMicroUsd(prices.at("gpt-4o", changed - 1), counts(1_000, 0))).toBe(2_500n);
    expect(costMicroUsd(prices.at("mine", NOW), counts(1_000, 1_000, { cached: 500 }))).toBe(9_500n);
    expect(costMicroUsd(prices.at("mine", changed), counts(1_000, 0))).toBe(4_000n);
  });

  test("has a version that says its rates", () => {
    const prices = table(overrides);
    expect(prices.at("mine", changed).version).toBe("config 2026-12-01T00:00:00.000Z 4000000/2000000/16000000");
    expect(prices.at("mine", NOW).version).toBe("config always 2000000/1000000/8000000");
  });

  test("can say that a model is priced as another", () => {
    const price = table(overrides).at("deployment-7", NOW);
    expect(price).toMatchObject({ model: "deployment-7", version: "genai-prices 0.1.8 openai/gpt-4o" });
    expect(costMicroUsd(price, counts(1_000, 0))).toBe(2_500n);
  });

  test("is listed with the prices before it", () => {
    const listed = table(overrides, ["llama3.1"]).list();
    expect(listed.map(({ model, priceVersion }) => [model, priceVersion.split(" ")[0]])).toEqual([
      ["deployment-7", "genai-prices"],
      ["gpt-4o", "genai-prices"],
      ["gpt-4o", "config"],
      ["llama3.1", ""],
      ["mine", "config"],
      ["mine", "config"],
    ]);
    expect(listed[2]).toMatchObject({
      inputMicroUsdPerMillion: 1_000_000n,
      validFrom: { seconds: BigInt(changed / 1_000) },
    });
    expect(table().list("o3")).toHaveLength(2);
  });
});

describe("a cost", () => {
  test.each([
    [1, 499_999, 0n],
    [1, 500_000, 1n],
    [3, 500_000, 2n],
    [1, 1_500_000, 2n],
  ])("of %d tokens at %d is rounded half up to %d", (tokens, input, expected) => {
    const price = table([{ model: "m", validFromMs: 0, price: { input, cachedInput: 0, output: 0, reasoning: 0 } }]).at(
      "m",
      NOW,
    );
    expect(costMicroUsd(price, counts(tokens, 0))).toBe(expected);
  });

  test("of nonsense counts is that of the whole, and never negative", () => {
    const price = table().at("gpt-4o", NOW);
    expect(costMicroUsd(price, counts(1_000, 0, { cached: 5_000 }))).toBe(1_250n);
    expect(costMicroUsd(price, counts(-5, -5, { cached: -1, reasoning: -1 }))).toBe(0n);
    expect(costMicroUsd(price, counts(0, 100, { reasoning: 500 }))).toBe(1_000n);
  });

  test("is exact where doubles are not", () => {
    const price = table([
      { model: "m", validFromMs: 0, price: { input: 1e12, cachedInput: 0, output: 1, reasoning: 1 } },
    ]).at("m", NOW);
    expect(costMicroUsd(price, counts(9_007_199_254_740_991, 500_000))).toBe(9_007_199_254_740_991_000_001n);
  });

  test("is never above the largest, whatever the kinds of the tokens", () => {
    const token = fc.integer({ min: 0, max: 400_000 });
    const model = fc.constantFrom(
      "gpt-4",
      "gpt-4o",
      "o3",
      "gemini-2.5-pro",
      "deepseek-chat",
      "claude-sonnet-4-20250514",
      "unknown",
      "sonar-pro",
    );
    fc.assert(
      fc.property(model, token, token, token, token, (name, prompt, completion, cached, reasoning) => {
        const price = table().at(name, NOW);
        const bounds = { promptTokens: prompt + cached, maxCompletionTokens: completion + reasoning };
        const used = counts(prompt, completion, { cached, reasoning });
        expect(costMicroUsd(price, used) <= largestCostMicroUsd(price, bounds)).toBe(true);
      }),
    );
  });
});
