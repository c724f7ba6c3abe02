import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import type { UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import type { UsageGroup } from "../../gen/parley/usage/v1/usage_service_pb.js";

/** What was used, added up. */
export interface Sums {
  readonly calls: bigint;
  readonly promptTokens: bigint;
  readonly completionTokens: bigint;
  readonly costMicroUsd: bigint;
  /** Of the tokens, those that no price is known for: they cost the default one. */
  readonly unpricedTokens: bigint;
}

/** The sums of what has one name: of a group, or of a session. */
export interface NamedSums extends Sums {
  readonly name: string;
}

/** Usage by name and by interval. */
export interface CostsSummary {
  readonly total: Sums;
  /** By cost, highest first. */
  readonly groups: readonly NamedSums[];
  /** What each name cost in each interval, by the interval's start. */
  readonly costs: ReadonlyMap<number, ReadonlyMap<string, bigint>>;
}

const NOTHING: Sums = { calls: 0n, promptTokens: 0n, completionTokens: 0n, costMicroUsd: 0n, unpricedTokens: 0n };

/** Adds up the service's groups by a name of theirs. */
export function summaryOf(found: readonly UsageGroup[], nameOf: (group: UsageGroup) => string): CostsSummary {
  const byName = new Map<string, Sums>();
  const costs = new Map<number, Map<string, bigint>>();
  for (const group of found) {
    const name = nameOf(group);
    byName.set(name, plus(byName.get(name) ?? NOTHING, group));
    const startMs = msOf(group.intervalStart);
    const column = costs.get(startMs) ?? new Map<string, bigint>();
    costs.set(startMs, column.set(name, (column.get(name) ?? 0n) + group.costMicroUsd));
  }
  const groups = [...byName].map(([name, sums]) => ({ name, ...sums })).toSorted(byCost);
  return { total: groups.reduce(plus, NOTHING), groups, costs };
}

/** The sums of ledger rows by a name of theirs, by cost. A correction is no call of its own. */
export function sumRows(rows: readonly UsageRecord[], nameOf: (row: UsageRecord) => string): NamedSums[] {
  const byName = new Map<string, Sums>();
  for (const row of rows) {
    const name = nameOf(row);
    const calls = row.correctsRecordId === "" ? 1n : 0n;
    // Whether a price came later is seen over all rows only.
    byName.set(name, plus(byName.get(name) ?? NOTHING, { ...amountsOf(row), calls, unpricedTokens: 0n }));
  }
  return [...byName].map(([name, sums]) => ({ name, ...sums })).toSorted(byCost);
}

export function totalOf(sums: readonly Sums[]): Sums {
  return sums.reduce(plus, NOTHING);
}

export function msOf(time: Timestamp | undefined): number {
  return time === undefined ? 0 : timestampMs(time);
}

function amountsOf({ promptTokens, completionTokens, costMicroUsd }: UsageRecord) {
  return { promptTokens, completionTokens, costMicroUsd };
}

function plus(a: Sums, b: Sums): Sums {
  return {
    calls: a.calls + b.calls,
    promptTokens: a.promptTokens + b.promptTokens,
    completionTokens: a.completionTokens + b.completionTokens,
    costMicroUsd: a.costMicroUsd + b.costMicroUsd,
    unpricedTokens: a.unpricedTokens + b.unpricedTokens,
  };
}

function byCost(a: NamedSums, b: NamedSums): number {
  if (a.costMicroUsd !== b.costMicroUsd) return a.costMicroUsd > b.costMicroUsd ? -1 : 1;
  if (a.promptTokens !== b.promptTokens) return a.promptTokens > b.promptTokens ? -1 : 1;
  return a.name < b.name ? -1 : 1;
}
