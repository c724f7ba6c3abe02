import { BudgetPeriod } from "../../gen/parley/usage/v1/budget_pb.js";

/** A period's name in keys and in configuration. */
export type PeriodName = "hour" | "day" | "month";

/** All periods, shortest first. */
export const BUDGET_PERIODS: readonly { readonly name: PeriodName; readonly period: BudgetPeriod }[] = [
  { name: "hour", period: BudgetPeriod.HOUR },
  { name: "day", period: BudgetPeriod.DAY },
  { name: "month", period: BudgetPeriod.MONTH },
];

/** One period around a point in time: from `startMs` to just before `endMs`, in milliseconds since the epoch. */
export interface PeriodSpan {
  readonly name: PeriodName;
  readonly startMs: number;
  readonly endMs: number;
}

/** The clock hour, the day and the month of a point in time, in UTC. `account-scripts.ts` computes the same in Lua. */
export function periodsOf(timeMs: number): readonly PeriodSpan[] {
  return BUDGET_PERIODS.map(({ name }) => periodOf(name, timeMs));
}

export function periodOf(name: PeriodName, timeMs: number): PeriodSpan {
  if (name === "month") {
    const time = new Date(timeMs);
    const month = (after: number): number => Date.UTC(time.getUTCFullYear(), time.getUTCMonth() + after);
    return { name, startMs: month(0), endMs: month(1) };
  }
  const lengthMs = name === "hour" ? 3_600_000 : 86_400_000;
  const startMs = Math.floor(timeMs / lengthMs) * lengthMs;
  return { name, startMs, endMs: startMs + lengthMs };
}

/** The name of a period; undefined: it has none, as BUDGET_PERIOD_UNSPECIFIED. */
export function periodName(period: BudgetPeriod): PeriodName | undefined {
  return BUDGET_PERIODS.find((known) => known.period === period)?.name;
}
