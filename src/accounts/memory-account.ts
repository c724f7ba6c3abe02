import type { UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import { CALL_MEMORY_MS, COUNTER_SLACK_MS, LEDGER_MS } from "./account-store.ts";
import { BUDGET_PERIODS, type PeriodName, type PeriodSpan, periodsOf } from "./budget-periods.ts";
import type { BudgetLimits, BudgetName } from "./budgets.ts";
import { type ScopeName, scopesOf } from "./call-scopes.ts";
import { type Amounts, holdTimeMsOf, NOTHING, plus } from "./usage-amounts.ts";

/** What the embedded accounts keep of one tenant. */
export interface MemoryAccount {
  readonly budgets: Map<BudgetName, BudgetLimits>;
  /** Calls that are held. */
  readonly held: Map<string, HeldCall>;
  /** Calls that have ended, in the order in which they did. */
  readonly ended: Map<string, EndedCall>;
  /** Counters by period, then by its start and scope; in the order in which they were made. */
  readonly uses: Readonly<Record<PeriodName, Map<string, Use>>>;
  readonly ledger: LedgerRow[];
  /** Rows that were dropped at the ledger's begin: places in it go on counting. */
  dropped: number;
}

export interface HeldCall {
  readonly maximum: UsageRecord;
  readonly holdTimeMs: number;
  readonly callMs: number;
  /** Undefined: not started. */
  owner: string | undefined;
  untilMs: number;
}

export interface EndedCall {
  state: "settled" | "charged" | "released";
  readonly holdTimeMs: number;
  /** The row and its corrections. */
  readonly rows: UsageRecord[];
  readonly endTimeMs: number;
}

export interface Use {
  spent: Amounts;
  held: Amounts;
  wouldRefuse: bigint;
  readonly expireTimeMs: number;
}

interface LedgerRow {
  readonly record: UsageRecord;
  readonly appendTimeMs: number;
}

export function createMemoryAccount(): MemoryAccount {
  return {
    budgets: new Map(),
    held: new Map(),
    ended: new Map(),
    uses: { hour: new Map(), day: new Map(), month: new Map() },
    ledger: [],
    dropped: 0,
  };
}

const UNUSED: Readonly<Use> = Object.freeze({ spent: NOTHING, held: NOTHING, wouldRefuse: 0n, expireTimeMs: 0 });

/** What is used of a scope in a period. */
export function useOf(account: MemoryAccount, { name, startMs }: PeriodSpan, scope: ScopeName): Readonly<Use> {
  return account.uses[name].get(`${startMs}:${scope}`) ?? UNUSED;
}

/** The counters of a scope in a period, to be changed; undefined: their time is over. */
export function countedUse(
  account: MemoryAccount,
  { name, startMs, endMs }: PeriodSpan,
  { scope, nowMs }: { scope: ScopeName; nowMs: number },
): Use | undefined {
  const expireTimeMs = endMs + COUNTER_SLACK_MS;
  if (expireTimeMs <= nowMs) return undefined;
  const key = `${startMs}:${scope}`;
  const use = account.uses[name].get(key) ?? { ...UNUSED, expireTimeMs };
  account.uses[name].set(key, use);
  return use;
}

/** Adds to what is spent, or held, on all scopes and periods of a call. */
export function count(
  account: MemoryAccount,
  record: UsageRecord,
  { what, by, holdTimeMs, nowMs }: { what: "spent" | "held"; by: Amounts; holdTimeMs: number; nowMs: number },
): void {
  for (const span of periodsOf(holdTimeMs)) {
    for (const scope of scopesOf(record)) {
      const use = countedUse(account, span, { scope, nowMs });
      if (use !== undefined) use[what] = plus(use[what], by);
    }
  }
}

export function appendRow(account: MemoryAccount, record: UsageRecord, nowMs: number): void {
  account.ledger.push({ record, appendTimeMs: Math.max(nowMs, holdTimeMsOf(record)) });
}

/** Drops what has had its time. Everything stands in the order of its end, nearly; what stands behind a younger one waits for it. */
export function dropOld(account: MemoryAccount, nowMs: number): void {
  for (const [callId, { endTimeMs }] of account.ended) {
    if (endTimeMs + CALL_MEMORY_MS > nowMs) break;
    account.ended.delete(callId);
  }
  for (const { name } of BUDGET_PERIODS) {
    for (const [key, { expireTimeMs }] of account.uses[name]) {
      if (expireTimeMs > nowMs) break;
      account.uses[name].delete(key);
    }
  }
  let old = 0;
  while (old < account.ledger.length && (account.ledger[old]?.appendTimeMs ?? nowMs) + LEDGER_MS <= nowMs) old += 1;
  account.ledger.splice(0, old);
  account.dropped += old;
}
