import { create } from "@bufbuild/protobuf";
import { type UsageRecord, UsageRecordSchema } from "../../gen/parley/usage/v1/usage_record_pb.js";
import {
  type AccountStore,
  CALL_MEMORY_MS,
  type CallStanding,
  type CallToHold,
  type SettleOutcome,
  UNSTARTED_HOLD_MS,
} from "./account-store.ts";
import { budgetNames, type ConfiguredBudgets, configuredBudgets } from "./budget-lookup.ts";
import { type PeriodSpan, periodOf, periodsOf } from "./budget-periods.ts";
import { type BudgetHit, BudgetRefusal } from "./budget-refusal.ts";
import { budgetView, compareBudgetNames, headroomView } from "./budget-views.ts";
import { type BudgetLimits, type BudgetName, budgetName, parseBudgetName } from "./budgets.ts";
import { type ScopeName, scopeName, scopesOf } from "./call-scopes.ts";
import {
  appendRow,
  count,
  countedUse,
  createMemoryAccount,
  dropOld,
  type EndedCall,
  type HeldCall,
  type MemoryAccount,
  useOf,
} from "./memory-account.ts";
import {
  amountsOf,
  chargedBy,
  differenceRow,
  heldAt,
  holdTimeMsOf,
  lostRow,
  minus,
  NOTHING,
  sameCharge,
} from "./usage-amounts.ts";

/** Accounts in this process, for its life. */
export function createMemoryAccountStore({
  budgets = configuredBudgets([]),
  now = Date.now,
}: {
  /** What the configuration declares. */
  budgets?: ConfiguredBudgets;
  /** The clock, in milliseconds since the epoch; for tests. Default: the system's. */
  now?: () => number;
} = {}): AccountStore {
  const accounts = new Map<string, MemoryAccount>();

  /** The account, without what has expired. */
  const open = (tenant: string, nowMs: number): MemoryAccount => {
    const account = accounts.get(tenant) ?? createMemoryAccount();
    accounts.set(tenant, account);
    dropOld(account, nowMs);
    for (const [callId, call] of account.held) {
      if (call.owner === undefined && call.untilMs <= nowMs) giveBack(account, callId, call, nowMs);
    }
    return account;
  };

  /** What the account's budgets say to a call. */
  const check = (account: MemoryAccount, maximum: UsageRecord, nowMs: number) => {
    const wanted = amountsOf(maximum);
    const hits: BudgetHit[] = [];
    const wouldRefuse: BudgetHit[] = [];
    const binding: { scope: ScopeName; span: PeriodSpan; limits: BudgetLimits }[] = [];
    for (const scope of scopesOf(maximum)) {
      for (const span of periodsOf(nowMs)) {
        const names = budgetNames(span.name, scope);
        const limits = names.map((name) => find(account, maximum.tenant, name)).find((found) => found !== undefined);
        if (limits === undefined) continue;
        binding.push({ scope, span, limits });
        const { spent, held } = useOf(account, span, scope);
        const known = { scope, period: span.name, resetTimeMs: span.endMs };
        const units = [
          { unit: "micro_usd", limit: limits.limitMicroUsd, of: "microUsd" },
          { unit: "tokens", limit: limits.limitTokens, of: "tokens" },
        ] as const;
        for (const { unit, limit, of } of units) {
          if (limit === undefined || spent[of] + held[of] + wanted[of] <= limit) continue;
          const hit = { ...known, unit, limit, spent: spent[of], held: held[of], wanted: wanted[of] };
          (limits.dryRun ? wouldRefuse : hits).push(hit);
        }
      }
    }
    return { hits, wouldRefuse, binding };
  };
  const find = (account: MemoryAccount, tenant: string, name: BudgetName): BudgetLimits | undefined =>
    account.budgets.get(name) ?? budgets.of(tenant).get(name);

  /** Appends the call's row and forgets its hold. */
  const end = (
    account: MemoryAccount,
    row: UsageRecord,
    { state, nowMs }: { state: "settled" | "charged"; nowMs: number },
  ) => {
    const callId = row.recordId;
    const held = account.held.get(callId);
    if (held !== undefined) giveBack(account, callId, held, nowMs);
    const holdTimeMs = holdTimeMsOf(row);
    count(account, row, { what: "spent", by: amountsOf(row), holdTimeMs, nowMs });
    appendRow(account, row, nowMs);
    account.ended.delete(callId);
    account.ended.set(callId, { state, holdTimeMs, rows: [row], endTimeMs: nowMs });
  };

  const correct = (record: UsageRecord, nowMs: number): SettleOutcome => {
    const account = open(record.tenant, nowMs);
    const call = account.ended.get(record.recordId);
    const [row, ...corrections] = call?.rows ?? [];
    if (call === undefined || row === undefined) return { state: "forgotten" };
    const charged = chargedBy([row, ...corrections]);
    const truth = heldAt(copy(record), call.holdTimeMs);
    if (sameCharge(charged, truth)) return { state: "stands", record: charged };
    const difference = differenceRow(charged, truth, `${record.recordId}/correction-${corrections.length + 1}`);
    append(account, call, { difference, payer: row, nowMs });
    call.state = "settled";
    return { state: "corrected", record: chargedBy([row, ...corrections, difference]) };
  };

  const lose = (account: MemoryAccount, call: HeldCall, nowMs: number): UsageRecord => {
    const row = lostRow(call.maximum, call.holdTimeMs);
    end(account, row, { state: "charged", nowMs });
    return copy(row);
  };

  const view = (account: MemoryAccount, tenant: string, name: BudgetName, nowMs: number) => {
    const { period, scope } = parseBudgetName(name);
    const span = periodOf(period, nowMs);
    const limits = find(account, tenant, name) ?? { dryRun: false };
    return budgetView(name, limits, { ...useOf(account, span, scope), resetTimeMs: span.endMs });
  };

  return {
    async hold({ maximum, callMs, priceSpan }: CallToHold) {
      const nowMs = now();
      const account = open(maximum.tenant, nowMs);
      const callId = maximum.recordId;
      const before = account.held.get(callId);
      if (before !== undefined) {
        const { holdTimeMs, owner } = before;
        return owner === undefined ? { state: "held", holdTimeMs, wouldRefuse: [] } : { state: "started", holdTimeMs };
      }
      const ended = account.ended.get(callId);
      if (ended !== undefined) return { state: "ended", holdTimeMs: ended.holdTimeMs };
      if (priceSpan !== undefined && (nowMs < priceSpan.fromMs || nowMs >= priceSpan.untilMs)) {
        return { state: "price_changed", nowMs };
      }
      const { hits, wouldRefuse } = check(account, maximum, nowMs);
      if (hits.length > 0) throw new BudgetRefusal(hits, nowMs);
      const counted = new Set(wouldRefuse.map(({ period, scope }) => budgetName(period, scope)));
      for (const name of counted) {
        const { period, scope } = parseBudgetName(name);
        const use = countedUse(account, periodOf(period, nowMs), { scope, nowMs });
        if (use !== undefined) use.wouldRefuse += 1n;
      }
      count(account, maximum, { what: "held", by: amountsOf(maximum), holdTimeMs: nowMs, nowMs });
      account.held.set(callId, {
        maximum: copy(maximum),
        holdTimeMs: nowMs,
        callMs,
        owner: undefined,
        untilMs: nowMs + UNSTARTED_HOLD_MS,
      });
      return { state: "held", holdTimeMs: nowMs, wouldRefuse };
    },

    async start({ tenant, callId }, owner) {
      const nowMs = now();
      const account = open(tenant, nowMs);
      const call = account.held.get(callId);
      if (call === undefined) return account.ended.has(callId) ? "ended" : "not_held";
      if (call.owner !== undefined) return call.owner === owner ? "started" : "started_by_other";
      call.owner = owner;
      call.untilMs = nowMs + call.callMs;
      return "started";
    },

    async settle(record) {
      const nowMs = now();
      const account = open(record.tenant, nowMs);
      const callId = record.recordId;
      const ended = account.ended.get(callId);
      const [row, ...corrections] = ended?.rows ?? [];
      if (ended !== undefined && row !== undefined) {
        if (ended.state === "charged") return correct(record, nowMs);
        return { state: "stands", record: chargedBy([row, ...corrections]) };
      }
      const holdTimeMs = account.held.get(callId)?.holdTimeMs ?? ended?.holdTimeMs ?? (holdTimeMsOf(record) || nowMs);
      if (holdTimeMs <= nowMs - CALL_MEMORY_MS && !account.held.has(callId) && ended === undefined) {
        return { state: "forgotten" };
      }
      const settled = heldAt(copy(record), holdTimeMs);
      end(account, settled, { state: "settled", nowMs });
      return { state: "settled", record: copy(settled) };
    },

    async release({ tenant, callId }, owner) {
      const nowMs = now();
      const account = open(tenant, nowMs);
      const call = account.held.get(callId);
      if (call === undefined || (call.owner !== undefined && call.owner !== owner)) return;
      giveBack(account, callId, call, nowMs);
      account.ended.set(callId, { state: "released", holdTimeMs: call.holdTimeMs, rows: [], endTimeMs: nowMs });
    },

    async lose({ tenant, callId }) {
      const nowMs = now();
      const account = open(tenant, nowMs);
      const call = account.held.get(callId);
      return call?.owner === undefined ? undefined : lose(account, call, nowMs);
    },

    async expired(truthOf) {
      const nowMs = now();
      const late = [...accounts.keys()].flatMap((tenant) =>
        [...open(tenant, nowMs).held.values()].filter(({ untilMs }) => untilMs <= nowMs),
      );
      const rows: UsageRecord[] = [];
      for (const call of late) {
        const truth = await truthOf?.(lostRow(call.maximum, call.holdTimeMs));
        const account = open(call.maximum.tenant, nowMs);
        // Ended meanwhile.
        if (account.held.get(call.maximum.recordId) !== call) continue;
        if (truth === undefined) {
          rows.push(lose(account, call, nowMs));
        } else {
          const row = heldAt(copy(truth), call.holdTimeMs);
          end(account, row, { state: "settled", nowMs });
          rows.push(copy(row));
        }
      }
      return rows;
    },

    correct: async (record) => correct(record, now()),

    async amend(tenant, corrections) {
      const nowMs = now();
      const account = open(tenant, nowMs);
      let added = 0;
      for (const { difference } of corrections) {
        const { recordId, correctsRecordId } = difference;
        if (account.ended.has(recordId)) continue;
        const row = copy(difference);
        const done: EndedCall = { state: "settled", holdTimeMs: holdTimeMsOf(row), rows: [], endTimeMs: nowMs };
        append(account, done, { difference: row, payer: row, nowMs });
        account.ended.set(recordId, done);
        const corrected = account.ended.get(correctsRecordId);
        if (corrected !== undefined && corrected.rows.length > 0) corrected.rows.push(row);
        added += 1;
      }
      return added;
    },

    async find({ tenant, callId }): Promise<CallStanding | undefined> {
      const account = open(tenant, now());
      const held = account.held.get(callId);
      if (held !== undefined) {
        const { owner, holdTimeMs, maximum } = held;
        const state = owner === undefined ? "unstarted" : "started";
        return { state, holdTimeMs, record: heldAt(maximum, holdTimeMs) };
      }
      const ended = account.ended.get(callId);
      const [row, ...corrections] = ended?.rows ?? [];
      if (ended === undefined) return undefined;
      const { state, holdTimeMs } = ended;
      return { state, holdTimeMs, ...(row === undefined ? {} : { record: chargedBy([row, ...corrections]) }) };
    },

    async preview({ maximum }) {
      const nowMs = now();
      const account = open(maximum.tenant, nowMs);
      const { hits, binding } = check(account, maximum, nowMs);
      return {
        ...(hits.length === 0 ? {} : { refusal: new BudgetRefusal(hits, nowMs) }),
        headroom: binding.map(({ scope, span, limits }) =>
          headroomView(scope, limits, { ...useOf(account, span, scope), resetTimeMs: span.endMs }),
        ),
      };
    },

    async budgets(tenant) {
      const nowMs = now();
      const account = open(tenant, nowMs);
      const names = new Set([...account.budgets.keys(), ...budgets.of(tenant).keys()]);
      return [...names].toSorted(compareBudgetNames).map((name) => view(account, tenant, name, nowMs));
    },

    async setBudget(tenant, { scope, period, ...limits }) {
      const nowMs = now();
      const account = open(tenant, nowMs);
      const name = budgetName(period, scope);
      if (limits.limitMicroUsd === undefined && limits.limitTokens === undefined) account.budgets.delete(name);
      else account.budgets.set(name, limits);
      return view(account, tenant, name, nowMs);
    },

    async ledger({ tenant, startMs, endMs, limit, after }) {
      const account = open(tenant, now());
      const first = Math.max(0, Number(after ?? 0) - account.dropped);
      const page = account.ledger.slice(first, first + limit);
      const next = account.dropped + first + page.length;
      return {
        rows: page
          .map(({ record }) => copy(record))
          .filter((row) => holdTimeMsOf(row) >= startMs && holdTimeMsOf(row) < endMs),
        ...(page.length < limit ? {} : { next: String(next) }),
      };
    },

    tenants: async () => [...accounts.keys()],

    async spentThisMonth(tenant) {
      const nowMs = now();
      return useOf(open(tenant, nowMs), periodOf("month", nowMs), scopeName("tenant", tenant)).spent;
    },
  };
}

/** Takes a hold off the counters and forgets it. */
function giveBack(account: MemoryAccount, callId: string, { maximum, holdTimeMs }: HeldCall, nowMs: number): void {
  const by = minus(NOTHING, amountsOf(maximum));
  count(account, maximum, { what: "held", by, holdTimeMs, nowMs });
  account.held.delete(callId);
}

/** Appends a correction to a call's rows. */
function append(
  account: MemoryAccount,
  call: EndedCall,
  { difference, payer, nowMs }: { difference: UsageRecord; payer: UsageRecord; nowMs: number },
): void {
  count(account, payer, { what: "spent", by: amountsOf(difference), holdTimeMs: call.holdTimeMs, nowMs });
  appendRow(account, difference, nowMs);
  call.rows.push(difference);
}

/** What callers hand in and get out stays theirs. */
function copy(record: UsageRecord): UsageRecord {
  return create(UsageRecordSchema, record);
}
