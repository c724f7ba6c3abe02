import { Failure } from "../failure.ts";
import type { PeriodName } from "./budget-periods.ts";
import type { ScopeName } from "./call-scopes.ts";

/** A budget that a call does not fit. */
export interface BudgetHit {
  readonly scope: ScopeName;
  readonly period: PeriodName;
  /** What all amounts here are of. */
  readonly unit: "micro_usd" | "tokens";
  readonly limit: bigint;
  /** Spent in the period, without what is held. */
  readonly spent: bigint;
  /** Held by other calls under way. */
  readonly held: bigint;
  /** What the call would hold. */
  readonly wanted: bigint;
  /** When the period ends, in milliseconds since the epoch. */
  readonly resetTimeMs: number;
}

/**
 * A call was refused: on each of `hits` it would cross the cap. BUDGET_EXHAUSTED with how long until a retry can succeed,
 * or CALL_EXCEEDS_BUDGET where the call alone is more than a whole budget.
 */
export class BudgetRefusal extends Failure {
  readonly hits: readonly BudgetHit[];

  constructor(hits: readonly BudgetHit[], nowMs: number) {
    const retryAfterMs = retryAfterMsOf(hits, nowMs);
    super(retryAfterMs === undefined ? "CALL_EXCEEDS_BUDGET" : "BUDGET_EXHAUSTED", {
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
      quotas: hits.map((hit) => ({ subject: hit.scope, description: describe(hit) })),
    });
    this.name = "BudgetRefusal";
    this.hits = hits;
  }
}

/**
 * Room that other calls' holds take may be free when the first of them settles: that is asked for again after a while that
 * a short call takes.
 */
const HELD_RETRY_MS = 1_000;

/** Until the last of the budgets can admit the call; undefined: one of them never will. */
function retryAfterMsOf(hits: readonly BudgetHit[], nowMs: number): number | undefined {
  let longestMs = 0;
  for (const { limit, spent, wanted, resetTimeMs } of hits) {
    if (wanted > limit) return undefined;
    const untilResetMs = Math.max(1, resetTimeMs - nowMs);
    longestMs = Math.max(longestMs, spent + wanted <= limit ? Math.min(HELD_RETRY_MS, untilResetMs) : untilResetMs);
  }
  return longestMs;
}

/** Scope, limit, spent, held and reset, as a person reads them and a program can take them apart. */
function describe({ period, unit, limit, spent, held, wanted, resetTimeMs }: BudgetHit): string {
  const resets = new Date(resetTimeMs).toISOString();
  return `${period} budget: limit ${limit} ${unit}, spent ${spent}, held ${held}, wanted ${wanted}, resets ${resets}`;
}
