import type { PeriodName } from "./budget-periods.ts";
import type { ScopeName } from "./call-scopes.ts";

/** What a scope may spend in a period. An absent limit does not bind. */
export interface BudgetLimits {
  readonly limitMicroUsd?: bigint;
  /** Prompt and completion. */
  readonly limitTokens?: bigint;
  /** Count who would have been refused, refuse nobody. */
  readonly dryRun: boolean;
}

/** A budget that the configuration declares for an account. The same one set at run time takes its place. */
export interface ConfiguredBudget extends BudgetLimits {
  readonly tenant: string;
  readonly scope: ScopeName;
  readonly period: PeriodName;
}

/** A budget's name in an account: one per scope and period. */
export type BudgetName = `${PeriodName}:${ScopeName}`;

export function budgetName(period: PeriodName, scope: ScopeName): BudgetName {
  return `${period}:${scope}`;
}

export function parseBudgetName(name: string): { period: PeriodName; scope: ScopeName } {
  const colon = name.indexOf(":");
  return { period: name.slice(0, colon) as PeriodName, scope: name.slice(colon + 1) as ScopeName };
}
