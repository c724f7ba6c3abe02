import type { Redis } from "ioredis";
import type { UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import { ACCOUNTS_KEY, moneyKeys } from "../../src/accounts/account-keys.ts";
import type { AccountStore } from "../../src/accounts/account-store.ts";
import { periodOf, periodsOf } from "../../src/accounts/budget-periods.ts";
import { scopeName, scopesOf } from "../../src/accounts/call-scopes.ts";
import { encodeRow } from "../../src/accounts/redis-account-replies.ts";
import { chargedBy, holdTimeMsOf } from "../../src/accounts/usage-amounts.ts";

// Ledgers as tests, the bench and the soak read and fill them.

/** All rows of a ledger, in the order in which they were appended. */
export async function ledgerOf(store: Pick<AccountStore, "ledger">, tenant: string): Promise<UsageRecord[]> {
  const rows: UsageRecord[] = [];
  let after: string | undefined;
  do {
    const query = { tenant, startMs: 0, endMs: Number.MAX_SAFE_INTEGER, limit: 100 };
    const page = await store.ledger({ ...query, ...(after === undefined ? {} : { after }) });
    rows.push(...page.rows);
    after = page.next;
  } while (after !== undefined);
  return rows;
}

/** Rows of one write. */
const PAGE = 2_000;

/** Appends rows to an account's ledger as the service does, but without their calls, and counts them as the account's spend: many of them, fast. */
export async function fillLedger(redis: Redis, tenant: string, rows: Iterable<UsageRecord>): Promise<void> {
  const { ledger, prefix } = moneyKeys(tenant);
  await redis.zadd(ACCOUNTS_KEY, Date.now() + 86_400_000, tenant);
  let page = redis.pipeline();
  let spent = new Map<string, bigint>();
  const write = async (): Promise<void> => {
    for (const [key, microUsd] of spent) page.hincrby(key, "spent_cost", String(microUsd));
    for (const [error] of (await page.exec()) ?? []) if (error !== null) throw error;
    page = redis.pipeline();
    spent = new Map();
  };
  for (const row of rows) {
    page.xadd(ledger, "*", "v", "1", "r", encodeRow(row));
    const { startMs } = periodOf("month", holdTimeMsOf(row));
    const key = `${prefix}use:month:${startMs}:${scopeName("tenant", tenant)}`;
    spent.set(key, (spent.get(key) ?? 0n) + row.costMicroUsd);
    if (page.length >= PAGE) await write();
  }
  await write();
}

/** What is charged for each call in the end, in the order in which calls were held. */
export function chargesOf(rows: readonly UsageRecord[]): UsageRecord[] {
  const byCall = Map.groupBy(rows, ({ recordId, correctsRecordId }) => correctsRecordId || recordId);
  const charges = [...byCall.values()].map((all) => chargedBy(all as [UsageRecord, ...UsageRecord[]]));
  return charges.toSorted(
    (a, b) => holdTimeMsOf(a) - holdTimeMsOf(b) || a.recordId.localeCompare(b.recordId, "en", { numeric: true }),
  );
}

/** What a counter of Redis must have spent for a ledger, by what follows `use:` in its key. */
export function countersOf(rows: readonly UsageRecord[]): Map<string, { cost: bigint; tokens: bigint }> {
  const sums = new Map<string, { cost: bigint; tokens: bigint }>();
  for (const row of rows) {
    for (const scope of scopesOf(row)) {
      for (const { name: period, startMs } of periodsOf(holdTimeMsOf(row))) {
        const key = `${period}:${startMs}:${scope}`;
        const { cost, tokens } = sums.get(key) ?? { cost: 0n, tokens: 0n };
        const more = row.promptTokens + row.completionTokens;
        sums.set(key, { cost: cost + row.costMicroUsd, tokens: tokens + more });
      }
    }
  }
  return sums;
}
