import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import {
  UsageDimension,
  type UsageGroup,
  UsageGroupSchema,
  UsageInterval,
} from "../../gen/parley/usage/v1/usage_service_pb.js";
import type { AccountStore } from "./account-store.ts";
import { type PeriodName, periodOf } from "./budget-periods.ts";
import { holdTimeMsOf } from "./usage-amounts.ts";

/** Rows of one read of the ledger: some hundred kilobytes. */
const PAGE_ROWS = 1_000;

/**
 * The rows of a range that fit the filters, oldest first; a range is of holds' times, from `startMs` to just before `endMs`.
 * A correction has its row's dimensions, and so fits where that fits.
 */
export async function* rowsOf(
  accounts: Pick<AccountStore, "ledger">,
  {
    filters = new Map(),
    tenant,
    startMs,
    endMs,
  }: { readonly tenant: string; readonly startMs: number; readonly endMs: number; readonly filters?: UsageFilters },
): AsyncGenerator<UsageRecord, void> {
  let after: string | undefined;
  do {
    const from = after === undefined ? {} : { after };
    const page = await accounts.ledger({ tenant, startMs, endMs, limit: PAGE_ROWS, ...from });
    for (const row of page.rows) if (fits(row, filters)) yield row;
    after = page.next;
  } while (after !== undefined);
}

/** The values that are asked for, of each dimension that is asked for. */
export type UsageFilters = ReadonlyMap<UsageDimension, ReadonlySet<string>>;

/** Whether usage has one of the values of each dimension. */
export function fits(usage: GroupedUsage, filters: UsageFilters): boolean {
  for (const [dimension, values] of filters) if (!values.has(dimensionOf(usage, dimension))) return false;
  return true;
}

/** What usage can be grouped by, but for the interval. */
export type GroupedUsage = Pick<
  UsageRecord,
  "tenant" | "team" | "userId" | "useCase" | "agent" | "model" | "version" | "sessionId"
>;

/** Sums usage by groups and intervals: by interval, then by cost, highest first. */
export async function sumUsage(
  rows: AsyncIterable<UsageRecord>,
  { groupBy, interval, startMs }: { groupBy: readonly UsageDimension[]; interval: UsageInterval; startMs: number },
): Promise<UsageGroup[]> {
  const groups = new Map<string, UsageGroup>();
  // Tokens of rows without a price stay unpriced until a correction brings one.
  const unpriced = new Map<string, { readonly group: UsageGroup; readonly tokens: bigint }>();
  for await (const row of rows) {
    const values = groupBy.map((dimension) => dimensionOf(row, dimension));
    const beginMs = intervalStartMs(interval, holdTimeMsOf(row), startMs);
    const key = JSON.stringify([beginMs, ...values]);
    const group = groups.get(key) ?? create(UsageGroupSchema, { values, intervalStart: timestampFromMs(beginMs) });
    groups.set(key, group);
    const tokens = row.promptTokens + row.completionTokens;
    group.promptTokens += row.promptTokens;
    group.completionTokens += row.completionTokens;
    group.costMicroUsd += row.costMicroUsd;
    if (row.correctsRecordId === "") group.calls += 1n;
    if (row.priceVersion === "") {
      const callId = row.correctsRecordId || row.recordId;
      const before = unpriced.get(callId)?.tokens ?? 0n;
      unpriced.set(callId, { group, tokens: before + tokens });
      group.unpricedTokens += tokens;
    } else if (row.correctsRecordId !== "") {
      const found = unpriced.get(row.correctsRecordId);
      if (found === undefined) continue;
      found.group.unpricedTokens -= found.tokens;
      unpriced.delete(row.correctsRecordId);
    }
  }
  return [...groups.values()].toSorted(compareGroups);
}

export function dimensionOf(row: GroupedUsage, dimension: UsageDimension): string {
  switch (dimension) {
    case UsageDimension.TENANT:
      return row.tenant;
    case UsageDimension.TEAM:
      return row.team;
    case UsageDimension.USER:
      return row.userId;
    case UsageDimension.USE_CASE:
      return row.useCase;
    case UsageDimension.AGENT:
      return row.agent;
    case UsageDimension.MODEL:
      return row.model;
    case UsageDimension.VERSION:
      return row.version;
    case UsageDimension.SESSION:
      return row.sessionId;
    case UsageDimension.UNSPECIFIED:
      throw new TypeError("an unspecified dimension is refused before");
  }
}

/** Periods of the intervals that have one. */
export const INTERVALS: Readonly<Partial<Record<UsageInterval, PeriodName>>> = {
  [UsageInterval.HOUR]: "hour",
  [UsageInterval.DAY]: "day",
  [UsageInterval.MONTH]: "month",
};

/** The first interval begins with the range, not before it. */
export function intervalStartMs(interval: UsageInterval, timeMs: number, rangeStartMs: number): number {
  const name = INTERVALS[interval];
  return name === undefined ? rangeStartMs : Math.max(rangeStartMs, periodOf(name, timeMs).startMs);
}

export function compareGroups(a: UsageGroup, b: UsageGroup): number {
  const seconds = Number((a.intervalStart?.seconds ?? 0n) - (b.intervalStart?.seconds ?? 0n));
  if (seconds !== 0) return seconds;
  if (a.costMicroUsd !== b.costMicroUsd) return a.costMicroUsd > b.costMicroUsd ? -1 : 1;
  return a.values.join("\n") < b.values.join("\n") ? -1 : 1;
}
