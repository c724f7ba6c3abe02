import type { UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import type { AccountStore } from "../../src/accounts/account-store.ts";
import { periodsOf } from "../../src/accounts/budget-periods.ts";
import { scopesOf } from "../../src/accounts/call-scopes.ts";
import { chargedBy, holdTimeMsOf } from "../../src/accounts/usage-amounts.ts";

// Ledgers as tests and the soak read them.

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
