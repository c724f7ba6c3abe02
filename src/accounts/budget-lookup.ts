import type { PeriodName } from "./budget-periods.ts";
import { type BudgetLimits, type BudgetName, budgetName, type ConfiguredBudget } from "./budgets.ts";
import { EACH, eachOf, type ScopeName } from "./call-scopes.ts";

/** Budgets of the configuration, by account. */
export interface ConfiguredBudgets {
  /** The account's budgets by name; those of account `*` are every account's. */
  of(tenant: string): ReadonlyMap<BudgetName, BudgetLimits>;
}

export function configuredBudgets(budgets: readonly ConfiguredBudget[]): ConfiguredBudgets {
  const byTenant = new Map<string, Map<BudgetName, BudgetLimits>>();
  const mapOf = (tenant: string): Map<BudgetName, BudgetLimits> => {
    const made = byTenant.get(tenant) ?? new Map<BudgetName, BudgetLimits>();
    byTenant.set(tenant, made);
    return made;
  };
  for (const { tenant, scope, period, ...limits } of budgets) mapOf(tenant).set(budgetName(period, scope), limits);
  const everywhere = mapOf(EACH);
  for (const [tenant, own] of byTenant) {
    if (tenant !== EACH) byTenant.set(tenant, new Map([...everywhere, ...own]));
  }
  return { of: (tenant) => byTenant.get(tenant) ?? everywhere };
}

/**
 * Names under which a scope's budget of a period is looked for, the first that is found counts: its own, then the one for
 * each of its kind. What was set at run time comes before what is configured under the same name.
 */
export function budgetNames(period: PeriodName, scope: ScopeName): readonly [own: BudgetName, each: BudgetName] {
  return [budgetName(period, scope), budgetName(period, eachOf(scope))];
}
