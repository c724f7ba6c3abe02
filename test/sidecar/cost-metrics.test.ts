import { readFileSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { Registry } from "prom-client";
import { describe, expect, it, test, vi } from "vitest";
import { BudgetSchema } from "../../gen/parley/usage/v1/budget_pb.js";
import { startAccountWatch } from "../../sidecar/account-watch.ts";
import { COST_METRICS, createCostMetrics } from "../../sidecar/cost-metrics.ts";
import { createMemoryRollups } from "../../sidecar/rollups-memory.ts";
import { budgetScope } from "../../src/accounts/call-scopes.ts";
import { createMemoryAccountStore } from "../../src/accounts/memory-account-store.ts";
import { Failure } from "../../src/failure.ts";
import { createLogger } from "../../src/platform/logger.ts";
import { call, settled } from "../accounts/calls.ts";
import { applyAll } from "./rollup-sums.ts";
import { startTestSidecar } from "./started-sidecar.ts";

const TABLE = Object.values(COST_METRICS);
const docs = readFileSync(join(import.meta.dirname, "../../docs/costs.md"), "utf8");
const logger = createLogger({ level: "silent", version: "0", track: "stable" });

test("the docs have a row for each metric of cost, and no row for any other", () => {
  const rows = docs.split("\n").filter((line) => line.startsWith("| `parley_"));
  expect(rows).toEqual(
    TABLE.map(({ name, type, unit, labels, help }) => {
      const codes = labels.map((label) => `\`${label}\``).join(", ");
      return `| \`${name}\` | ${type} | ${unit} | ${codes} | ${help} |`;
    }),
  );
});

test("every label has its values in the docs, and every documented label is in the table", () => {
  const [, section = ""] = docs.split("### Label values");
  const documented = [...section.matchAll(/^\| `(\w+)` \|/gm)].map(([, label]) => label);
  expect(documented.toSorted()).toEqual([...new Set(TABLE.flatMap(({ labels }) => labels))].toSorted());
});

/** Metrics, and what they say: series by name and labels, without the default ones. */
function createTestMetrics(topUsers = 100) {
  const registry = new Registry();
  const releases = new Registry();
  const metrics = createCostMetrics({ registry, releases, topUsers });
  const read = async (): Promise<Record<string, number>> => {
    const lines = `${await registry.metrics()}\n${await releases.metrics()}`.split("\n");
    const samples = lines.filter((line) => line.startsWith("parley_")).map((line) => /^(.*) (\S+)$/.exec(line));
    return Object.fromEntries(samples.map((sample) => [sample?.[1] ?? "", Number(sample?.[2])]));
  };
  return { registry, releases, metrics, read };
}

const entry = (id: string, init: Parameters<typeof settled>[1]) => ({
  id,
  row: settled(id, { priceVersion: "v", version: "0.4.0", ...init }),
});

describe("the metrics of cost", () => {
  it("are registered as the table says: names, types, help and labels", async () => {
    const { registry, releases, metrics } = createTestMetrics();
    metrics.applied("acme", [entry("c1", { priceVersion: "" })]);
    metrics.anomaly("acme", "call_loop");
    const budget = create(BudgetSchema, {
      scope: budgetScope("user:ann"),
      period: 1,
      limitMicroUsd: 5n,
      limitTokens: 6n,
    });
    metrics.accounts([{ tenant: "acme", rollupMicroUsd: 1n, ledgerMicroUsd: 1n, budgets: [budget] }]);
    const families = [...(await registry.getMetricsAsJSON()), ...(await releases.getMetricsAsJSON())];
    const described = families.map(({ name, type, help, values }) => {
      const labels = new Set(values.flatMap((value) => Object.keys(value.labels)));
      return { name, type: String(type), help, labels: [...labels].toSorted() };
    });
    const expected = TABLE.map(({ name, type, help, labels }) => ({ name, type, help, labels: labels.toSorted() }));
    const byName = (a: { name: string }, b: { name: string }): number => (a.name < b.name ? -1 : 1);
    expect(described.toSorted(byName)).toEqual(expected.toSorted(byName));
  });

  it("count money, and tokens by type so that each has one, by the release of the row", async () => {
    const { metrics, read } = createTestMetrics();
    const tokens = { promptTokens: 100n, cachedPromptTokens: 60n, completionTokens: 30n, reasoningTokens: 10n };
    metrics.applied("acme", [
      entry("c1", { ...tokens, costMicroUsd: 1_500_000n }),
      entry("c2", { costMicroUsd: 1n }),
      entry("c3", { priceVersion: "", promptTokens: 7n, completionTokens: 2n }),
    ]);
    const labels = (type: string) =>
      `{tenant="acme",team="red",use_case="help",model="gpt-4",type="${type}",version="0.4.0"}`;
    expect(await read()).toMatchObject({
      [`parley_cost_usd_total${labels("total")}`]: 1.500011,
      [`parley_cost_tokens_total${labels("prompt")}`]: 48,
      [`parley_cost_tokens_total${labels("cached_prompt")}`]: 60,
      [`parley_cost_tokens_total${labels("completion")}`]: 23,
      [`parley_cost_tokens_total${labels("reasoning")}`]: 10,
      'parley_unpriced_tokens_total{tenant="acme",model="gpt-4"}': 9,
      parley_ledger_rows_applied_total: 3,
    });
  });

  it("give the first users labels of their own, for good, and the others one together: sums stay right", async () => {
    const { metrics, read } = createTestMetrics(2);
    for (const [index, userId] of ["a", "b", "c", "d", "a", "c", "b"].entries()) {
      metrics.applied("acme", [entry(`c${index}`, { userId, costMicroUsd: 1_000_000n })]);
    }
    expect(await read()).toMatchObject({
      'parley_cost_user_usd_total{tenant="acme",user="a"}': 2,
      'parley_cost_user_usd_total{tenant="acme",user="b"}': 2,
      'parley_cost_user_usd_total{tenant="acme",user="__other__"}': 3,
    });
  });

  it("stay bounded whatever clients make up", async () => {
    const { metrics, read } = createTestMetrics();
    const made = Array.from({ length: 1_500 }, (_, index) =>
      entry(`c${index}`, { useCase: `made-up-${index}`, userId: `u${index}`, costMicroUsd: 1_000_000n }),
    );
    metrics.applied("acme", made);
    const all = Object.entries(await read());
    const sumOf = (name: string): [number, number] => {
      const series = all.filter(([key]) => key.startsWith(`${name}{`));
      return [series.length, series.reduce((sum, [, value]) => sum + value, 0)];
    };
    expect(sumOf("parley_cost_usd_total")).toEqual([1_001, 1_500]);
    expect(sumOf("parley_cost_user_usd_total")).toEqual([101, 1_500]);
  });

  it("never fall: a correction of less than nothing is taken off what comes next", async () => {
    const { metrics, read } = createTestMetrics();
    const cost = async () => Object.entries(await read()).find(([key]) => key.startsWith("parley_cost_usd_total"))?.[1];
    metrics.applied("acme", [entry("c1", { costMicroUsd: 5_000_000n })]);
    metrics.applied("acme", [entry("c1/1", { correctsRecordId: "c1", costMicroUsd: -3_000_000n })]);
    expect(await cost()).toBe(5);
    metrics.applied("acme", [entry("c2", { costMicroUsd: 2_000_000n })]);
    expect(await cost()).toBe(5);
    metrics.applied("acme", [entry("c3", { costMicroUsd: 4_000_000n })]);
    expect(await cost()).toBe(8);
  });
});

describe("what a sidecar says of accounts", () => {
  it("is what it applied, the month by rollups and by spend counters, budgets, and nothing due", async () => {
    const accounts = createMemoryAccountStore();
    const rollups = createMemoryRollups({ accounts });
    const tenant = "acme";
    await accounts.setBudget(tenant, { scope: "user:ann", period: "day", limitMicroUsd: 90_000_000n, dryRun: false });
    await accounts.setBudget(tenant, { scope: "team:red", period: "hour", limitTokens: 500n, dryRun: true });
    for (const id of ["c1", "c2", "c3"]) {
      await accounts.hold(call(id, { costMicroUsd: 2_000_000n }));
      if (id !== "c3")
        await accounts.settle(settled(id, { costMicroUsd: 1_250_000n, priceVersion: "v", version: "0.4.0" }));
    }
    // One of them was applied before this sidecar began.
    await rollups.apply(tenant, await rollups.take(tenant, 1));
    const started = await startTestSidecar({ accounts, rollups });
    await vi.waitFor(async () => expect(await rollups.standing(tenant)).toMatchObject({ pending: 0 }));
    const lines = (await started.metrics()).split("\n");
    const value = (start: string): string | undefined =>
      lines
        .find((line) => line.startsWith(start))
        ?.split(" ")
        .at(-1);
    const budget = 'tenant="acme",scope="user",scope_id="ann",period="day",dry_run="false"';
    await vi.waitFor(async () =>
      expect((await started.metrics()).includes('parley_rollup_cost_usd{tenant="acme",')).toBe(true),
    );
    expect({
      limit: value(`parley_budget_limit_usd{${budget}`),
      spent: value(`parley_budget_spent_usd{${budget}`),
      held: value(`parley_budget_held_usd{${budget}`),
      tokens: value(
        'parley_budget_limit_tokens{tenant="acme",scope="team",scope_id="red",period="hour",dry_run="true"',
      ),
      spentTokens: value(
        'parley_budget_spent_tokens{tenant="acme",scope="team",scope_id="red",period="hour",dry_run="true"',
      ),
      ledger: value('parley_ledger_cost_usd{tenant="acme"'),
      up: value("parley_usage_up"),
    }).toEqual({ limit: "90", spent: "2.5", held: "2", tokens: "500", spentTokens: "4", ledger: "2.5", up: "1" });
    // The release's version is the only one on its series.
    const cost = lines.filter((line) => line.startsWith("parley_cost_usd_total{"));
    expect(cost).toEqual([
      'parley_cost_usd_total{tenant="acme",team="red",use_case="help",model="gpt-4",type="total",version="0.4.0",track="stable"} 1.25',
    ]);
    await started.sidecar.close();
  });

  it("is how old the oldest row is that is not in the rollups when they are read, not when a watch last looked", async () => {
    const accounts = createMemoryAccountStore();
    const rollups = createMemoryRollups({ accounts });
    let holdsUp = true;
    const started = await startTestSidecar({
      accounts,
      rollups: { ...rollups, take: async (tenant, limit) => (holdsUp ? [] : rollups.take(tenant, limit)) },
    });
    const read = async (): Promise<{ lag: number; pending: number }> => {
      const text = await started.metrics();
      const value = (name: string) => Number(new RegExp(`^${name}\\{.*\\} (\\S+)$`, "m").exec(text)?.[1]);
      return { lag: value("parley_ledger_lag_seconds"), pending: value("parley_ledger_pending") };
    };
    expect(await read()).toEqual({ lag: 0, pending: 0 });
    const sinceMs = performance.now();
    for (const id of ["c1", "c2"]) {
      await accounts.hold(call(id));
      await accounts.settle(settled(id));
    }
    expect((await read()).pending).toBe(2);
    await new Promise((resolve) => setTimeout(resolve, 60));
    const { lag } = await read();
    expect(lag).toBeGreaterThan(0.05);
    expect(lag).toBeLessThanOrEqual((performance.now() - sinceMs) / 1_000 + 0.01);
    holdsUp = false;
    await vi.waitFor(async () => expect(await rollups.standing("acme")).toMatchObject({ pending: 0 }), 10_000);
    expect(await read()).toEqual({ lag: 0, pending: 0 });
    await started.sidecar.close();
  });

  it("can be read while the store hangs, and the ledger's age grows", async () => {
    const accounts = createMemoryAccountStore();
    const rollups = createMemoryRollups({ accounts });
    const over = Promise.withResolvers<void>();
    let hangs = false;
    const started = await startTestSidecar({
      accounts,
      rollups: {
        ...rollups,
        async standing(tenant) {
          if (hangs) await over.promise;
          return rollups.standing(tenant);
        },
      },
    });
    await accounts.hold(call("c1"));
    const lag = async () => Number(/^parley_ledger_lag_seconds\{.*\} (\S+)$/m.exec(await started.metrics())?.[1]);
    expect(await lag()).toBe(0);
    hangs = true;
    const first = await lag();
    expect(first).toBeGreaterThan(0);
    expect(await lag()).toBeGreaterThan(first);
    hangs = false;
    over.resolve();
    await vi.waitFor(async () => expect(await lag()).toBe(0));
    await started.sidecar.close();
  });

  it("begins at 0 for every group of the month, and grows older while the store cannot be asked", async () => {
    const accounts = createMemoryAccountStore();
    const rollups = createMemoryRollups({ accounts });
    await accounts.hold(call("c1"));
    await accounts.settle(settled("c1", { version: "0.3.0" }));
    await applyAll(rollups, "acme");
    const { metrics, read } = createTestMetrics();
    let fails = false;
    const watch = startAccountWatch({
      accounts,
      rollups: {
        ...rollups,
        async tenants() {
          if (fails) throw new Failure("STORE_UNAVAILABLE");
          return rollups.tenants();
        },
      },
      metrics,
      logger,
      everyMs: 10,
    });
    await vi.waitFor(async () =>
      expect(await read()).toMatchObject({
        'parley_cost_usd_total{tenant="acme",team="red",use_case="help",model="gpt-4",type="total",version="0.3.0"}': 0,
        parley_ledger_lag_seconds: 0,
        parley_ledger_pending: 0,
      }),
    );
    fails = true;
    await vi.waitFor(async () => expect((await read()).parley_ledger_lag_seconds).toBeGreaterThan(0.05));
    fails = false;
    await vi.waitFor(async () => expect((await read()).parley_ledger_lag_seconds).toBe(0));
    await watch.stop();
  });
});
