import { Counter, Gauge, type Registry } from "prom-client";
import type { Budget } from "../gen/parley/usage/v1/budget_pb.js";
import { periodName } from "../src/accounts/budget-periods.ts";
import { nameOfBudgetScope, parseScopeName } from "../src/accounts/call-scopes.ts";
import { ANOMALY_KINDS, type AnomalyKind } from "./anomaly-rules.ts";
import type { LedgerEntry, LedgerStanding, RollupGroup } from "./rollups.ts";

/** One metric. `release`: its label `version` is that of the release that made the call, not this process'. */
interface MetricRow {
  readonly name: `parley_${string}`;
  readonly type: "counter" | "gauge";
  readonly unit: string;
  readonly labels: readonly string[];
  readonly help: string;
  readonly release?: true;
}

const BUDGET_LABELS = ["tenant", "scope", "scope_id", "period", "dry_run"] as const;

/** All metrics of cost; `docs/costs.md` says the same, and a test compares the two. */
export const COST_METRICS = {
  cost: {
    name: "parley_cost_usd_total",
    type: "counter",
    unit: "US dollars",
    labels: ["tenant", "team", "use_case", "model", "type", "version"],
    help: "Cost of the ledger's rows that this process applied; type is total",
    release: true,
  },
  tokens: {
    name: "parley_cost_tokens_total",
    type: "counter",
    unit: "tokens",
    labels: ["tenant", "team", "use_case", "model", "type", "version"],
    help: "Tokens of the ledger's rows that this process applied; no token has two types",
    release: true,
  },
  userCost: {
    name: "parley_cost_user_usd_total",
    type: "counter",
    unit: "US dollars",
    labels: ["tenant", "user"],
    help: "Cost of the ledger's rows that this process applied, by user",
  },
  unpriced: {
    name: "parley_unpriced_tokens_total",
    type: "counter",
    unit: "tokens",
    labels: ["tenant", "model"],
    help: "Tokens of calls that no price was known for when they were made",
  },
  rollupCost: {
    name: "parley_rollup_cost_usd",
    type: "gauge",
    unit: "US dollars",
    labels: ["tenant"],
    help: "Cost of the running month by the rollups: take the maximum, not the sum",
  },
  ledgerCost: {
    name: "parley_ledger_cost_usd",
    type: "gauge",
    unit: "US dollars",
    labels: ["tenant"],
    help: "Cost of the running month by the spend counter that budgets are checked against: take the maximum, not the sum",
  },
  budgetLimit: {
    name: "parley_budget_limit_usd",
    type: "gauge",
    unit: "US dollars",
    labels: BUDGET_LABELS,
    help: "Limit of a budget of money: take the maximum, not the sum",
  },
  budgetSpent: {
    name: "parley_budget_spent_usd",
    type: "gauge",
    unit: "US dollars",
    labels: BUDGET_LABELS,
    help: "Spent of a budget of money in its running period",
  },
  budgetHeld: {
    name: "parley_budget_held_usd",
    type: "gauge",
    unit: "US dollars",
    labels: BUDGET_LABELS,
    help: "Held of a budget of money for calls under way",
  },
  budgetLimitTokens: {
    name: "parley_budget_limit_tokens",
    type: "gauge",
    unit: "tokens",
    labels: BUDGET_LABELS,
    help: "Limit of a budget of tokens: take the maximum, not the sum",
  },
  budgetSpentTokens: {
    name: "parley_budget_spent_tokens",
    type: "gauge",
    unit: "tokens",
    labels: BUDGET_LABELS,
    help: "Spent of a budget of tokens in its running period",
  },
  budgetHeldTokens: {
    name: "parley_budget_held_tokens",
    type: "gauge",
    unit: "tokens",
    labels: BUDGET_LABELS,
    help: "Held of a budget of tokens for calls under way",
  },
  lag: {
    name: "parley_ledger_lag_seconds",
    type: "gauge",
    unit: "seconds",
    labels: [],
    help: "Age of the oldest row of any ledger that is not in the rollups; it grows while the store cannot be asked; 0: there is none",
  },
  pending: {
    name: "parley_ledger_pending",
    type: "gauge",
    unit: "rows",
    labels: [],
    help: "Rows of all ledgers that are not in the rollups: take the maximum, not the sum",
  },
  rowsApplied: {
    name: "parley_ledger_rows_applied_total",
    type: "counter",
    unit: "rows",
    labels: [],
    help: "Rows of ledgers that this process added to the rollups",
  },
  anomalies: {
    name: "parley_cost_anomalies_total",
    type: "counter",
    unit: "anomalies",
    labels: ["tenant", "kind"],
    help: "Anomalies of cost that this process was the first to tell of",
  },
} as const satisfies Readonly<Record<string, MetricRow>>;

/** What the store says of one account. */
export interface AccountFacts {
  readonly tenant: string;
  readonly rollupMicroUsd: bigint;
  readonly ledgerMicroUsd: bigint;
  readonly budgets: readonly Budget[];
}

export interface CostMetrics {
  /** Makes a group's series, at 0: what is counted in it first is then seen as a rise. */
  admit(tenant: string, group: RollupGroup): void;
  applied(tenant: string, entries: readonly LedgerEntry[]): void;
  anomaly(tenant: string, kind: AnomalyKind): void;
  /** Takes the place of what was told before. */
  accounts(facts: readonly AccountFacts[]): void;
  /** What is still to be done of all ledgers. */
  ledgers(standings: readonly LedgerStanding[]): void;
  /** For this long the store has not said what is still to be done. */
  unknownFor(seconds: number): void;
}

/** Stands for all values that are too many for labels of their own. */
const OTHER = "__other__";

/** Values that teams, use cases, models and versions have for themselves at most, each: far above what an organisation has, far below what a client can make up. */
const MOST_VALUES = 1_000;

/** Budgets of one account that are shown: those of the widest scopes, as they are listed. */
const MOST_BUDGETS = 1_000;

/** Counts in the registries that it is given: `releases` must not have a default label `version`. */
export function createCostMetrics({
  registry,
  releases,
  topUsers,
}: {
  registry: Registry;
  releases: Registry;
  /** Users that have a label of their own, the first ones that are seen; all others share one. */
  topUsers: number;
}): CostMetrics {
  const registryOf = ({ release }: MetricRow): Registry => (release ? releases : registry);
  const counter = (row: MetricRow): RisingCounter =>
    new RisingCounter(
      new Counter({ name: row.name, help: row.help, labelNames: row.labels, registers: [registryOf(row)] }),
    );
  const gauge = (row: MetricRow): Gauge<string> =>
    new Gauge({ name: row.name, help: row.help, labelNames: row.labels, registers: [registryOf(row)] });
  const cost = counter(COST_METRICS.cost);
  const tokens = counter(COST_METRICS.tokens);
  const userCost = counter(COST_METRICS.userCost);
  const unpriced = counter(COST_METRICS.unpriced);
  const rollupCost = gauge(COST_METRICS.rollupCost);
  const ledgerCost = gauge(COST_METRICS.ledgerCost);
  const limit = gauge(COST_METRICS.budgetLimit);
  const spent = gauge(COST_METRICS.budgetSpent);
  const held = gauge(COST_METRICS.budgetHeld);
  const limitTokens = gauge(COST_METRICS.budgetLimitTokens);
  const spentTokens = gauge(COST_METRICS.budgetSpentTokens);
  const heldTokens = gauge(COST_METRICS.budgetHeldTokens);
  const lag = gauge(COST_METRICS.lag);
  const pending = gauge(COST_METRICS.pending);
  const rowsApplied = counter(COST_METRICS.rowsApplied);
  const anomalies = counter(COST_METRICS.anomalies);
  rowsApplied.add([], 0n);
  let lastLagSeconds = 0;

  const users = new Admitted(topUsers);
  const [teams, useCases, models, versions] = [0, 1, 2, 3].map(() => new Admitted(MOST_VALUES)) as [
    Admitted,
    Admitted,
    Admitted,
    Admitted,
  ];
  const labelsOf = (tenant: string, { team, useCase, model, version }: Omit<RollupGroup, "agent" | "userId">) => ({
    before: [tenant, teams.admit(team), useCases.admit(useCase), models.admit(model)],
    version: versions.admit(version),
  });
  const userOf = (tenant: string, userId: string): string =>
    users.admit(JSON.stringify([tenant, userId])) === OTHER ? OTHER : userId;
  const count = (
    tenant: string,
    group: Omit<RollupGroup, "agent">,
    amounts: { readonly costMicroUsd: bigint; readonly tokens: TokensByType },
  ): void => {
    const { before, version } = labelsOf(tenant, group);
    cost.add([...before, "total", version], amounts.costMicroUsd, MICRO);
    for (const [type, by] of Object.entries(amounts.tokens)) tokens.add([...before, type, version], by);
    userCost.add([tenant, userOf(tenant, group.userId)], amounts.costMicroUsd, MICRO);
  };

  return {
    admit(tenant, group) {
      count(tenant, group, { costMicroUsd: 0n, tokens: NO_TOKENS });
    },

    applied(tenant, entries) {
      for (const { row } of entries) {
        count(tenant, row, {
          costMicroUsd: row.costMicroUsd,
          tokens: {
            prompt: row.promptTokens - row.cachedPromptTokens,
            cached_prompt: row.cachedPromptTokens,
            completion: row.completionTokens - row.reasoningTokens,
            reasoning: row.reasoningTokens,
          },
        });
        const isUnpriced = row.priceVersion === "";
        unpriced.add([tenant, models.admit(row.model)], isUnpriced ? row.promptTokens + row.completionTokens : 0n);
      }
      rowsApplied.add([], BigInt(entries.length));
    },

    anomaly(tenant, kind) {
      anomalies.add([tenant, kind], 1n);
    },

    accounts(facts) {
      const all = [rollupCost, ledgerCost, limit, spent, held, limitTokens, spentTokens, heldTokens];
      for (const one of all) one.reset();
      for (const { tenant, rollupMicroUsd, ledgerMicroUsd, budgets } of facts) {
        for (const kind of ANOMALY_KINDS) anomalies.add([tenant, kind], 0n);
        rollupCost.set({ tenant }, usd(rollupMicroUsd));
        ledgerCost.set({ tenant }, usd(ledgerMicroUsd));
        for (const budget of budgets.slice(0, MOST_BUDGETS)) {
          const { kind, id } = parseScopeName(nameOfBudgetScope(budget.scope) ?? ":");
          const period = periodName(budget.period) ?? "";
          const labels = { tenant, scope: kind, scope_id: id, period, dry_run: String(budget.dryRun) };
          if (budget.limitMicroUsd !== undefined) {
            limit.set(labels, usd(budget.limitMicroUsd));
            spent.set(labels, usd(budget.spentMicroUsd));
            held.set(labels, usd(budget.heldMicroUsd));
          }
          if (budget.limitTokens !== undefined) {
            limitTokens.set(labels, Number(budget.limitTokens));
            spentTokens.set(labels, Number(budget.spentTokens));
            heldTokens.set(labels, Number(budget.heldTokens));
          }
        }
      }
    },

    ledgers(standings) {
      lastLagSeconds = standings.reduce((most, { lagMs }) => Math.max(most, lagMs), 0) / 1_000;
      lag.set(lastLagSeconds);
      pending.set(standings.reduce((sum, standing) => sum + standing.pending, 0));
    },

    unknownFor(seconds) {
      lag.set(lastLagSeconds + seconds);
    },
  };
}

interface TokensByType {
  readonly prompt: bigint;
  readonly cached_prompt: bigint;
  readonly completion: bigint;
  readonly reasoning: bigint;
}

const NO_TOKENS: TokensByType = { prompt: 0n, cached_prompt: 0n, completion: 0n, reasoning: 0n };

/** Millionths. */
const MICRO = 1_000_000;

function usd(microUsd: bigint): number {
  return Number(microUsd) / MICRO;
}

/** The first values that are seen stay for the life of the process; all others are `__other__`, so that sums stay right. */
class Admitted {
  readonly #values = new Set<string>();
  readonly #most: number;

  constructor(most: number) {
    this.#most = most;
  }

  admit(value: string): string {
    if (this.#values.has(value)) return value;
    if (this.#values.size >= this.#most) return OTHER;
    this.#values.add(value);
    return value;
  }
}

/**
 * A counter that corrections of less than nothing do not lower, which Prometheus would take for a restart: what they take
 * away is not counted of the next rows. It is so never below the true sum, and equal to it as soon as that is the highest
 * that it has been.
 */
class RisingCounter {
  readonly #counter: Counter<string>;
  readonly #series = new Map<string, { readonly child: Counter.Internal; owed: bigint }>();

  constructor(counter: Counter<string>) {
    this.#counter = counter;
  }

  /** Adds `by` parts of a unit that has `parts` of them. */
  add(labels: readonly string[], by: bigint, parts = 1): void {
    const key = JSON.stringify(labels);
    const series = this.#series.get(key) ?? { child: this.#counter.labels(...labels), owed: 0n };
    if (!this.#series.has(key)) {
      this.#series.set(key, series);
      series.child.inc(0);
    }
    const net = by - series.owed;
    series.owed = net < 0n ? -net : 0n;
    if (net > 0n) series.child.inc(Number(net) / parts);
  }
}
