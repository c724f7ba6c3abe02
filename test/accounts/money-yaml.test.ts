import { describe, expect, test } from "vitest";
import { budgetsYamlSchema, readBudgets } from "../../src/accounts/budgets-yaml.ts";
import { pricesYamlSchema, readPrices } from "../../src/accounts/prices-yaml.ts";

describe("section prices", () => {
  test("that is absent has a default price that is not free", () => {
    const { defaultPrice, overrides } = readPrices(pricesYamlSchema.parse(undefined));
    expect(defaultPrice).toEqual({
      input: 30_000_000,
      cachedInput: 30_000_000,
      output: 60_000_000,
      reasoning: 60_000_000,
    });
    expect(overrides).toEqual([]);
  });

  test("has overrides with dates, in dollars per million tokens", () => {
    const { overrides } = readPrices(
      pricesYamlSchema.parse({
        overrides: [
          {
            model: "m",
            valid_from: "2026-12-01",
            input_usd_per_million: 2.5,
            cached_input_usd_per_million: 0.3,
            output_usd_per_million: 10,
          },
          { model: "d", priced_as: "gpt-4o" },
        ],
      }),
    );
    expect(overrides).toEqual([
      {
        model: "m",
        validFromMs: Date.parse("2026-12-01T00:00:00Z"),
        price: { input: 2_500_000, cachedInput: 300_000, output: 10_000_000, reasoning: 10_000_000 },
      },
      { model: "d", validFromMs: 0, price: { pricedAs: "gpt-4o" } },
    ]);
  });

  test.each([
    [{ default: { input_usd_per_million: 0, output_usd_per_million: 1 } }, "must not be free"],
    [{ overrides: [{ model: "m" }] }, "must have either"],
    [{ overrides: [{ model: "m", priced_as: "x", input_usd_per_million: 1 }] }, "must have either"],
    [{ overrides: [{ model: "m", priced_as: "x", valid_from: "next week" }] }, "must be a date"],
    [{ overrides: [{ model: "m", priced_as: "x", valid_from: "2026-12-01T00:00:00" }] }, "must be a date"],
    [{ overrides: [{ model: "m", input_usd_per_million: -1, output_usd_per_million: 1 }] }, ""],
    [{ defaults: {} }, ""],
  ])("%j is refused", (section, sentence) => {
    const { error } = pricesYamlSchema.safeParse(section);
    expect(error?.issues[0]?.message).toContain(sentence);
  });
});

describe("section budgets", () => {
  test("has a budget for each entry", () => {
    const section = budgetsYamlSchema.parse([
      { tenant: "acme", scope: "user", id: "*", period: "day", limit_micro_usd: 5_000_000 },
      { scope: "tenant", period: "month", limit_tokens: 7, dry_run: true },
      { tenant: "*", scope: "tenant", period: "hour", limit_tokens: 9 },
    ]);
    expect(readBudgets(section)).toEqual([
      { tenant: "acme", scope: "user:*", period: "day", limitMicroUsd: 5_000_000n, dryRun: false },
      { tenant: "default", scope: "tenant:default", period: "month", limitTokens: 7n, dryRun: true },
      { tenant: "*", scope: "tenant:*", period: "hour", limitTokens: 9n, dryRun: false },
    ]);
  });

  test.each([
    [{ scope: "user", id: "a", period: "day" }, "must have limit_micro_usd"],
    [{ scope: "user", period: "day", limit_tokens: 1 }, "must have an id"],
    [{ scope: "tenant", id: "a", period: "day", limit_tokens: 1 }, "must have no id"],
    [{ scope: "user", id: "a", period: "week", limit_tokens: 1 }, ""],
    [{ scope: "user", id: "a", period: "day", limit_tokens: -1 }, ""],
  ])("%j is refused", (budget, sentence) => {
    const { error } = budgetsYamlSchema.safeParse([budget]);
    expect(error?.issues[0]?.message).toContain(sentence);
  });
});
