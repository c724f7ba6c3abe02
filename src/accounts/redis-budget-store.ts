import type { Budget } from "../../gen/parley/usage/v1/budget_pb.js";
import type { ScriptRunner } from "../store/redis-connection.ts";
import { moneyKeys } from "./account-keys.ts";
import type { AccountScriptName } from "./account-scripts.ts";
import type { AccountStore } from "./account-store.ts";
import type { ConfiguredBudgets } from "./budget-lookup.ts";
import { budgetView, compareBudgetNames, decodeLimits, encodeLimits } from "./budget-views.ts";
import { type BudgetLimits, budgetName } from "./budgets.ts";

/** The part of the Redis accounts that keeps and shows budgets. */
export function createRedisBudgetStore({
  run,
  budgets,
}: {
  run: ScriptRunner<AccountScriptName>;
  /** What the configuration declares. */
  budgets: ConfiguredBudgets;
}): Pick<AccountStore, "budgets" | "setBudget"> {
  /** All budgets that were set, and those of `configured` whose names are not set, by name. */
  const read = async (tenant: string, configured: ReadonlyMap<string, BudgetLimits>): Promise<Map<string, Budget>> => {
    const keys = moneyKeys(tenant);
    const fallback = [...configured].map(([name, limits]) => [name, encodeLimits(limits)]);
    const reply = (await run(
      "parleyReadBudgets",
      [keys.budgets, keys.unstarted],
      [keys.prefix, JSON.stringify(fallback)],
    )) as Buffer[][];
    return new Map(reply.map((row) => viewOf(row.map(String))));
  };

  return {
    async budgets(tenant) {
      const all = await read(tenant, budgets.of(tenant));
      return [...all].toSorted(([a], [b]) => compareBudgetNames(a, b)).map(([, budget]) => budget);
    },

    async setBudget(tenant, { scope, period, ...limits }) {
      const { budgets: key } = moneyKeys(tenant);
      const name = budgetName(period, scope);
      const removed = limits.limitMicroUsd === undefined && limits.limitTokens === undefined;
      await run("parleySetBudget", [key], [name, removed ? "" : encodeLimits(limits)]);
      const now = await read(tenant, new Map([[name, budgets.of(tenant).get(name) ?? limits]]));
      const budget = now.get(name);
      if (budget === undefined) throw new TypeError("a budget that is asked for is told of");
      return budget;
    },
  };
}

function viewOf(row: readonly string[]): [name: string, budget: Budget] {
  const [name = "", stored = "", spent = "", spentTokens = "", held = "", heldTokens = "", wouldRefuse = "", reset] =
    row;
  const use = {
    spent: { microUsd: BigInt(spent), tokens: BigInt(spentTokens) },
    held: { microUsd: BigInt(held), tokens: BigInt(heldTokens) },
    wouldRefuse: BigInt(wouldRefuse),
    resetTimeMs: Number(reset),
  };
  return [name, budgetView(name, decodeLimits(stored), use)];
}
