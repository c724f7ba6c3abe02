import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  UsageDimension,
  type UsageGroup,
  UsageGroupSchema,
  type UsageInterval,
} from "../gen/parley/usage/v1/usage_service_pb.js";
import { BUDGET_PERIODS, type PeriodName, periodOf } from "../src/accounts/budget-periods.ts";
import {
  compareGroups,
  dimensionOf,
  fits,
  INTERVALS,
  intervalStartMs,
  type UsageFilters,
} from "../src/accounts/usage-query.ts";
import type { Rollups } from "./rollups.ts";

/** A question to usage. */
export interface UsageQuestion {
  readonly tenant: string;
  readonly groupBy: readonly UsageDimension[];
  readonly interval: UsageInterval;
  readonly filters: UsageFilters;
  readonly startMs: number;
  readonly endMs: number;
}

/** One period that is read as a whole. */
interface WholePeriod {
  readonly period: PeriodName;
  readonly startMs: number;
}

/** Hours, days and months that a question may take; more of them are not faster than the ledger. */
const MOST_PERIODS = 2_000;

/**
 * The periods that make up a question's range, the longest that fit its interval; undefined: rollups cannot answer it, as
 * it asks for sessions, or for parts of hours.
 *
 * @param nowMs A range that goes beyond it is as long as one that ends with the running hour.
 */
export function periodsFor(question: UsageQuestion, nowMs: number): readonly WholePeriod[] | undefined {
  const { groupBy, filters, interval, startMs } = question;
  if (groupBy.includes(UsageDimension.SESSION) || filters.has(UsageDimension.SESSION)) return undefined;
  const runningHour = periodOf("hour", nowMs + CLOCK_SLACK_MS);
  const endMs = question.endMs > nowMs + CLOCK_SLACK_MS ? Math.min(question.endMs, runningHour.endMs) : question.endMs;
  const isWhole = (timeMs: number): boolean => periodOf("hour", timeMs).startMs === timeMs;
  if (!isWhole(startMs) || (endMs > startMs && !isWhole(endMs))) return undefined;
  const longest = BUDGET_PERIODS.findIndex(({ name }) => name === (INTERVALS[interval] ?? "month"));
  const names = BUDGET_PERIODS.slice(0, longest + 1).toReversed();
  const periods: WholePeriod[] = [];
  for (let atMs = startMs; atMs < endMs; ) {
    const fitting = names
      .map(({ name }) => periodOf(name, atMs))
      .find((period) => period.startMs === atMs && isWithin(period.endMs, { endMs, runningHour }));
    if (fitting === undefined || periods.length >= MOST_PERIODS) return undefined;
    periods.push({ period: fitting.name, startMs: atMs });
    atMs = fitting.endMs;
  }
  return periods;
}

/** The running day and month have no rows beyond the running hour. */
function isWithin(
  periodEndMs: number,
  { endMs, runningHour }: { readonly endMs: number; readonly runningHour: { readonly endMs: number } },
): boolean {
  return periodEndMs <= endMs || endMs >= runningHour.endMs;
}

/** Clocks of Redis and of this process may differ by so much, in milliseconds. */
const CLOCK_SLACK_MS = 60_000;

/** Sums rollups as `sumUsage` does rows. */
export async function sumRollups(
  rollups: Pick<Rollups, "read">,
  { tenant, groupBy, filters, interval, startMs: rangeStartMs }: UsageQuestion,
  periods: readonly WholePeriod[],
): Promise<UsageGroup[]> {
  const groups = new Map<string, UsageGroup>();
  for (const { period, startMs } of periods) {
    const beginMs = intervalStartMs(interval, startMs, rangeStartMs);
    for await (const { group: of, ...amounts } of rollups.read(tenant, period, startMs)) {
      const usage = { ...of, tenant, sessionId: "" };
      if (!fits(usage, filters)) continue;
      const values = groupBy.map((dimension) => dimensionOf(usage, dimension));
      const key = JSON.stringify([beginMs, ...values]);
      const group = groups.get(key) ?? create(UsageGroupSchema, { values, intervalStart: timestampFromMs(beginMs) });
      groups.set(key, group);
      group.calls += amounts.calls;
      group.promptTokens += amounts.promptTokens;
      group.completionTokens += amounts.completionTokens;
      group.costMicroUsd += amounts.costMicroUsd;
      group.unpricedTokens += amounts.unpricedTokens;
    }
  }
  return [...groups.values()].toSorted(compareGroups);
}
