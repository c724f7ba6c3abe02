import type { UsageRecord } from "../gen/parley/usage/v1/usage_record_pb.js";
import type { AccountStore } from "../src/accounts/account-store.ts";
import { BUDGET_PERIODS, type PeriodName, periodOf } from "../src/accounts/budget-periods.ts";
import { holdTimeMsOf } from "../src/accounts/usage-amounts.ts";
import { createMemoryWatch, type MemoryWatch } from "./memory-watch.ts";
import {
  amountsOfRow,
  callIdOf,
  decodeGroup,
  encodeGroup,
  type LedgerEntry,
  ROLLUP_RETENTION_MS,
  type RollupAmounts,
  type Rollups,
} from "./rollups.ts";

/** What is known of an account whose ledger is in this process. */
interface MemoryRollups {
  /** Rows of the ledger that are applied: from its first one on. */
  applied: number;
  /** By period and start, then by group. */
  readonly sums: Map<string, { readonly expireMs: number; readonly groups: Map<string, Sum> }>;
  /** Calls with unpriced tokens, or that were priced since, by call. */
  readonly unpriced: Map<string, { tokens: bigint; readonly group: string } | "priced">;
  /** Of users and sessions. */
  readonly watch: MemoryWatch;
}

type Sum = { -readonly [Name in keyof RollupAmounts]: bigint };

/** Rollups in this process, for its life, of accounts that are in it too. Rows are numbered by their place in the ledger. */
export function createMemoryRollups({
  accounts,
  now = Date.now,
}: {
  accounts: Pick<AccountStore, "ledger" | "tenants">;
  /** The clock, in milliseconds since the epoch; for tests. Default: the system's. */
  now?: () => number;
}): Rollups {
  const all = new Map<string, MemoryRollups>();
  const open = (tenant: string): MemoryRollups => {
    const known = all.get(tenant) ?? {
      applied: 0,
      sums: new Map(),
      unpriced: new Map(),
      watch: createMemoryWatch(now),
    };
    all.set(tenant, known);
    return known;
  };
  const rowsAfter = async (tenant: string, place: number, limit: number): Promise<readonly UsageRecord[]> => {
    const query = { tenant, startMs: 0, endMs: Number.MAX_SAFE_INTEGER, limit };
    return (await accounts.ledger({ ...query, after: String(place) })).rows;
  };

  const apply = ({ sums, unpriced }: MemoryRollups, row: UsageRecord): void => {
    const holdTimeMs = holdTimeMsOf(row);
    const add = (name: string, amounts: Partial<RollupAmounts>): void => {
      for (const period of BUDGET_PERIODS) {
        const { startMs, endMs } = periodOf(period.name, holdTimeMs);
        const expireMs = endMs + ROLLUP_RETENTION_MS[period.name];
        if (expireMs <= now()) continue;
        const key = `${period.name}:${startMs}`;
        const { groups } = sums.get(key) ?? { groups: new Map<string, Sum>() };
        sums.set(key, { expireMs, groups });
        const sum = groups.get(name) ?? { ...NOTHING };
        groups.set(name, sum);
        for (const [amount, by] of Object.entries(amounts)) sum[amount as keyof Sum] += by;
      }
    };
    const group = encodeGroup(row);
    add(group, amountsOfRow(row));
    const known = unpriced.get(callIdOf(row));
    if (row.priceVersion === "" && known !== "priced") {
      const tokens = row.promptTokens + row.completionTokens;
      add(group, { unpricedTokens: tokens });
      unpriced.set(callIdOf(row), { tokens: tokens + (known?.tokens ?? 0n), group });
    } else if (row.priceVersion !== "" && row.correctsRecordId !== "" && known !== undefined && known !== "priced") {
      add(known.group, { unpricedTokens: -known.tokens });
      unpriced.set(callIdOf(row), "priced");
    }
  };
  const dropOld = ({ sums }: MemoryRollups): void => {
    for (const [key, { expireMs }] of sums) if (expireMs <= now()) sums.delete(key);
  };

  return {
    tenants: () => accounts.tenants(),

    async take(tenant, limit) {
      const { applied } = open(tenant);
      const rows = await rowsAfter(tenant, applied, limit);
      return rows.map((row, index) => ({ id: String(applied + index), row }));
    },

    async apply(tenant, entries) {
      const rollups = open(tenant);
      const isNew: LedgerEntry[] = [];
      let suspicious = false;
      for (const entry of entries) {
        if (Number(entry.id) !== rollups.applied) continue;
        apply(rollups, entry.row);
        rollups.applied += 1;
        isNew.push(entry);
        if (rollups.watch.observe(entry.row)) suspicious = true;
      }
      dropOld(rollups);
      return { entries: isNew, suspicious };
    },

    async standing(tenant) {
      const rows = await rowsAfter(tenant, open(tenant).applied, STANDING_ROWS);
      const [first] = rows;
      return { pending: rows.length, lagMs: first === undefined ? 0 : Math.max(0, now() - holdTimeMsOf(first)) };
    },

    async *read(tenant, period: PeriodName, startMs) {
      const groups = open(tenant).sums.get(`${period}:${startMs}`)?.groups ?? new Map<string, Sum>();
      for (const [group, amounts] of groups) yield { group: decodeGroup(group), ...amounts };
    },

    async costThisMonth(tenant) {
      const { startMs } = periodOf("month", now());
      const groups = open(tenant).sums.get(`month:${startMs}`)?.groups.values() ?? [];
      return [...groups].reduce((sum, { costMicroUsd }) => sum + costMicroUsd, 0n);
    },

    history: async (tenant, suspicion) => open(tenant).watch.history(suspicion),
    suspicions: async (tenant) => open(tenant).watch.suspicions(),
    judge: async (tenant, suspicion, isAnomaly) => open(tenant).watch.judge(suspicion, isAnomaly),
    anomalies: async (tenant) => open(tenant).watch.anomalies(),

    leave: async () => undefined,
  };
}

/** Rows that are counted as pending at most. */
const STANDING_ROWS = 10_000;

const NOTHING: Readonly<Sum> = Object.freeze({
  calls: 0n,
  promptTokens: 0n,
  cachedPromptTokens: 0n,
  completionTokens: 0n,
  reasoningTokens: 0n,
  costMicroUsd: 0n,
  unpricedTokens: 0n,
});
