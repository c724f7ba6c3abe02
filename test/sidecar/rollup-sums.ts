import { expect } from "vitest";
import type { UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import { decodeGroup, encodeGroup, type Rollup, type Rollups } from "../../sidecar/rollups.ts";
import type { AccountStore } from "../../src/accounts/account-store.ts";
import { BUDGET_PERIODS, type PeriodName, periodOf } from "../../src/accounts/budget-periods.ts";
import { holdTimeMsOf } from "../../src/accounts/usage-amounts.ts";
import { ledgerOf } from "../support/ledger.ts";

/** A rollup's numbers, in the order of ROLLUP_AMOUNTS. */
type Sums = [bigint, bigint, bigint, bigint, bigint, bigint, bigint];

/** What the rollups of a ledger must be, by period and start, then by group: summed the plain way, call by call. */
function sumsOf(rows: readonly UsageRecord[]): Map<string, Map<string, Sums>> {
  const all = new Map<string, Map<string, Sums>>();
  const priced = new Set(
    rows
      .filter(({ priceVersion, correctsRecordId }) => priceVersion !== "" && correctsRecordId !== "")
      .map(({ correctsRecordId }) => correctsRecordId),
  );
  for (const row of rows) {
    for (const { name } of BUDGET_PERIODS) {
      const key = `${name}:${periodOf(name, holdTimeMsOf(row)).startMs}`;
      const groups = all.get(key) ?? new Map<string, Sums>();
      all.set(key, groups);
      const sums: Sums = groups.get(encodeGroup(row)) ?? [0n, 0n, 0n, 0n, 0n, 0n, 0n];
      groups.set(encodeGroup(row), sums);
      const isUnpriced = row.priceVersion === "" && !priced.has(row.correctsRecordId || row.recordId);
      const add: Sums = [
        row.correctsRecordId === "" ? 1n : 0n,
        row.promptTokens,
        row.cachedPromptTokens,
        row.completionTokens,
        row.reasoningTokens,
        row.costMicroUsd,
        isUnpriced ? row.promptTokens + row.completionTokens : 0n,
      ];
      for (const [index, amount] of add.entries()) sums[index] = (sums[index] ?? 0n) + amount;
    }
  }
  return all;
}

async function groupsOf(rollups: Rollups, tenant: string, key: string): Promise<Map<string, Sums>> {
  const [period, startMs] = key.split(":");
  const groups = new Map<string, Sums>();
  for await (const rollup of rollups.read(tenant, period as PeriodName, Number(startMs))) {
    const { team, userId, useCase, agent, model, version } = rollup.group;
    groups.set(JSON.stringify([team, userId, useCase, agent, model, version]), numbersOf(rollup));
  }
  return groups;
}

function numbersOf(rollup: Rollup): Sums {
  const { calls, promptTokens, cachedPromptTokens, completionTokens, reasoningTokens } = rollup;
  const { costMicroUsd, unpricedTokens } = rollup;
  return [calls, promptTokens, cachedPromptTokens, completionTokens, reasoningTokens, costMicroUsd, unpricedTokens];
}

/** Checks what must be so when the ledger has been followed to its end: rollups = ledger = spend counter, in every period. `nowMs`: the store's time. */
export async function checkRollups(
  rollups: Rollups,
  accounts: Pick<AccountStore, "ledger" | "spentThisMonth">,
  tenant: string,
  nowMs = Date.now(),
): Promise<{ rows: number }> {
  expect(await rollups.standing(tenant)).toEqual({ pending: 0, lagMs: 0 });
  const rows = await ledgerOf(accounts, tenant);
  for (const [key, groups] of sumsOf(rows)) {
    const kept = await groupsOf(rollups, tenant, key);
    expect([key, byName(kept)]).toEqual([key, byName(groups)]);
  }
  const month = periodOf("month", nowMs).startMs;
  const cost = rows
    .filter((row) => periodOf("month", holdTimeMsOf(row)).startMs === month)
    .reduce((sum, { costMicroUsd }) => sum + costMicroUsd, 0n);
  expect(await rollups.costThisMonth(tenant)).toBe(cost);
  expect((await accounts.spentThisMonth(tenant)).microUsd).toBe(cost);
  return { rows: rows.length };
}

/** Sums by group and kind, such as `["red","help","gpt-4","0.4.0","prompt"]`; money in millionths. No sum is 0. */
export type Totals = ReadonlyMap<string, bigint>;

/** What the counters of processes say together of an account; each text is what one of them shows to Prometheus. */
export function countedBy(texts: readonly string[], tenant: string): Totals {
  const totals = new Map<string, bigint>();
  for (const text of texts) {
    for (const [, metric, labels = "", value] of text.matchAll(/^parley_cost_(usd|tokens)_total\{(.*)\} (\S+)$/gm)) {
      const of = Object.fromEntries([...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, name, is]) => [name, is]));
      if (of.tenant !== tenant) continue;
      const amount = BigInt(Math.round(Number(value) * (metric === "usd" ? 1e6 : 1)));
      add(totals, [of.team, of.use_case, of.model, of.version, of.type], amount);
    }
  }
  return totals;
}

/** What the rollups of months say of the same. */
export async function rolledUp(rollups: Rollups, tenant: string, monthsMs: readonly number[]): Promise<Totals> {
  const totals = new Map<string, bigint>();
  for (const startMs of monthsMs) {
    for await (const { group, ...sums } of rollups.read(tenant, "month", startMs)) {
      const { team, useCase, model, version } = group;
      const of = [team, useCase, model, version];
      add(totals, [...of, "total"], sums.costMicroUsd);
      add(totals, [...of, "prompt"], sums.promptTokens - sums.cachedPromptTokens);
      add(totals, [...of, "cached_prompt"], sums.cachedPromptTokens);
      add(totals, [...of, "completion"], sums.completionTokens - sums.reasoningTokens);
      add(totals, [...of, "reasoning"], sums.reasoningTokens);
    }
  }
  return totals;
}

/** What has come since. */
export function riseOf(now: Totals, before: Totals): Totals {
  const totals = new Map(now);
  for (const [name, amount] of before) add(totals, JSON.parse(name) as string[], -amount);
  return totals;
}

function add(totals: Map<string, bigint>, name: readonly (string | undefined)[], amount: bigint): void {
  const key = JSON.stringify(name);
  const sum = (totals.get(key) ?? 0n) + amount;
  if (sum === 0n) totals.delete(key);
  else totals.set(key, sum);
}

function byName(groups: ReadonlyMap<string, Sums>) {
  return [...groups]
    .map(([field, sums]) => ({ ...decodeGroup(field), sums: sums.map(String).join(" ") }))
    .toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
}

/** Applies what there is, until there is no more. */
export async function applyAll(rollups: Rollups, tenant: string, batchRows = 100): Promise<number> {
  let applied = 0;
  for (;;) {
    const entries = await rollups.take(tenant, batchRows);
    if (entries.length === 0) return applied;
    applied += (await rollups.apply(tenant, entries)).entries.length;
  }
}
