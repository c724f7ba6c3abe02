import type { UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import type { RedisConnection } from "../store/redis-connection.ts";
import { ACCOUNTS_KEY, type MoneyKeys, moneyKeys } from "./account-keys.ts";
import { ACCOUNT_SCRIPTS } from "./account-scripts.ts";
import type { AccountStore, CallRef, CallStanding, CallToHold, SettleOutcome, StartOutcome } from "./account-store.ts";
import { budgetNames, type ConfiguredBudgets, configuredBudgets } from "./budget-lookup.ts";
import { BUDGET_PERIODS } from "./budget-periods.ts";
import { BudgetRefusal } from "./budget-refusal.ts";
import { encodeLimits } from "./budget-views.ts";
import { eachOf, type ScopeName, scopeName, scopesOf } from "./call-scopes.ts";
import {
  decodeEntry,
  decodeRow,
  encodeRow,
  type HoldReply,
  outcomeOfHold,
  type RawHoldReply,
  type RawReply,
  readHold,
  readStanding,
} from "./redis-account-replies.ts";
import { createRedisBudgetStore } from "./redis-budget-store.ts";
import {
  amountsOf,
  chargedBy,
  differenceRow,
  heldAt,
  holdTimeMsOf,
  lostRow,
  minus,
  sameCharge,
} from "./usage-amounts.ts";

/**
 * What is kept of a hold that nobody ends, in milliseconds: so long may all processes be down, and its call is charged all
 * the same when one is back.
 */
const HOLD_RECORD_MS = 35 * 24 * 3_600_000;

/**
 * An account is registered anew after this long, in milliseconds, once more after its last call too: a failover of the slot
 * that has the list may forget what was registered shortly before, and so long its account is missed.
 */
const REGISTRATION_MS = 60_000;

type SettleMode = "settle" | "lose" | "expire";

/** Lost calls that one script lists. */
const LOST_PAGE = 100;

/** Time after time a hold gives back expired ones of others, before it believes a refusal; each time a hundred or more. */
const SWEEPS = 100;

/** Corrections in one step: a script of that many takes a few milliseconds. */
const AMEND_PAGE = 50;

/**
 * Accounts on one Redis or a Redis Cluster, 7.0 or newer, shared by all processes. Each operation is one round trip, but
 * for `expired`, and `settle` where a lost call turns up; `hold` and `start` sent in one tick share one.
 *
 * One account has the throughput of one shard.
 */
export function createRedisAccountStore({
  connection,
  budgets = configuredBudgets([]),
}: {
  /** Whoever connected it closes it. */
  connection: RedisConnection;
  /** What the configuration declares. */
  budgets?: ConfiguredBudgets;
}): AccountStore {
  const run = connection.scripts(ACCOUNT_SCRIPTS);
  const registeredMs = new Map<string, number>();
  /** Accounts that this process has held for and not registered since it was done with them. */
  const usedMs = new Map<string, number>();

  const registerAt = async (tenant: string, nowMs: number): Promise<void> => {
    if (nowMs - (registeredMs.get(tenant) ?? Number.NEGATIVE_INFINITY) < REGISTRATION_MS) return;
    await run("parleyRegisterAccount", [ACCOUNTS_KEY], [tenant, 2 * HOLD_RECORD_MS]);
    registeredMs.set(tenant, nowMs);
  };
  /** Before the first hold: a hold that nobody could find would never be charged. */
  const register = (tenant: string): Promise<void> => {
    const nowMs = performance.now();
    usedMs.set(tenant, nowMs);
    return registerAt(tenant, nowMs);
  };
  const registerAgain = async (): Promise<void> => {
    const nowMs = performance.now();
    for (const [tenant, lastMs] of usedMs) {
      await registerAt(tenant, nowMs);
      if (nowMs - lastMs < REGISTRATION_MS || usedMs.get(tenant) !== lastMs) continue;
      usedMs.delete(tenant);
      registeredMs.delete(tenant);
    }
  };

  const tenants = async (): Promise<string[]> =>
    ((await run("parleyListAccounts", [ACCOUNTS_KEY], [])) as Buffer[]).map(String);

  const askHold = async (call: CallToHold, mode: "hold" | "preview"): Promise<HoldReply> => {
    const { maximum, callMs, priceSpan } = call;
    const keys = moneyKeys(maximum.tenant);
    const { microUsd, tokens } = amountsOf(maximum);
    const scopes = scopesOf(maximum);
    for (let sweeps = 0; ; sweeps += 1) {
      const reply = (await run(
        "parleyHold",
        [keys.budgets, keys.unstarted, keys.started, callKey(keys, maximum.recordId)],
        [
          keys.prefix,
          maximum.recordId,
          String(microUsd),
          String(tokens),
          encodeRow(maximum),
          callMs,
          priceSpan?.fromMs ?? 0,
          priceSpan?.untilMs ?? Number.MAX_SAFE_INTEGER,
          JSON.stringify(scopes),
          JSON.stringify(lookupOf(scopes, budgets.of(maximum.tenant))),
          HOLD_RECORD_MS,
          mode,
        ],
      )) as RawHoldReply;
      const read = readHold(reply, { microUsd, tokens });
      // Others' expired holds may still stand in the way.
      if (read.state !== "refused" || !read.again || sweeps >= SWEEPS) return read;
    }
  };

  const settle = async (record: UsageRecord, mode: SettleMode): Promise<{ reply: RawReply; row: UsageRecord }> => {
    const keys = moneyKeys(record.tenant);
    const { microUsd, tokens } = amountsOf(record);
    let row = record;
    for (;;) {
      const reply = (await run(
        "parleySettle",
        [keys.unstarted, keys.started, callKey(keys, record.recordId), keys.ledger],
        [
          keys.prefix,
          record.recordId,
          String(microUsd),
          String(tokens),
          encodeRow(row),
          JSON.stringify(scopesOf(record)),
          holdTimeMsOf(row),
          mode,
        ],
      )) as RawReply;
      if (String(reply[0]) !== "hold_time") return { reply, row };
      // The caller did not know, or the store lost the hold.
      row = heldAt(record, Number(String(reply[1])));
    }
  };

  /** Corrects what stands, until it is what it should be. */
  const correctStanding = async (record: UsageRecord, first: RawReply): Promise<SettleOutcome> => {
    const keys = moneyKeys(record.tenant);
    let standing = readStanding(first);
    for (;;) {
      const [row, ...corrections] = standing.rows;
      if (row === undefined) return { state: "forgotten" };
      const charged = chargedBy([row, ...corrections]);
      const truth = heldAt(record, standing.holdTimeMs);
      if (sameCharge(charged, truth)) return { state: "stands", record: charged };
      const difference = differenceRow(charged, truth, `${record.recordId}/correction-${corrections.length + 1}`);
      const { microUsd, tokens } = minus(amountsOf(truth), amountsOf(charged));
      const reply = (await run(
        "parleyCorrect",
        [callKey(keys, record.recordId), keys.ledger],
        [
          keys.prefix,
          standing.rowIds,
          String(microUsd),
          String(tokens),
          encodeRow(difference),
          JSON.stringify(scopesOf(row)),
          standing.holdTimeMs,
        ],
      )) as RawReply;
      const state = String(reply[0]);
      if (state === "corrected") return { state, record: chargedBy([row, ...corrections, difference]) };
      if (state === "forgotten") return { state };
      standing = readStanding(reply);
    }
  };

  const find = async ({ tenant, callId }: CallRef): Promise<CallStanding | undefined> => {
    const keys = moneyKeys(tenant);
    const reply = (await run("parleyFindCall", [callKey(keys, callId), keys.ledger], [])) as
      | [Buffer, Buffer, Buffer, Buffer[]]
      | null;
    if (reply === null) return undefined;
    const holdTimeMs = Number(String(reply[1]));
    const [row, ...corrections] = reply[3].map(decodeRow);
    const charged = row === undefined ? undefined : chargedBy([row, ...corrections]);
    const held = reply[2].length === 0 ? undefined : heldAt(decodeRow(reply[2]), holdTimeMs);
    const record = charged ?? held;
    return {
      state: String(reply[0]) as CallStanding["state"],
      holdTimeMs,
      ...(record === undefined ? {} : { record }),
    };
  };

  const loseAs = async (mode: "lose" | "expire", maximum: UsageRecord, holdTimeMs: number) => {
    const row = lostRow(maximum, holdTimeMs);
    const { reply } = await settle(row, mode);
    return String(reply[0]) === "settled" ? row : undefined;
  };

  const settleCall = async (record: UsageRecord): Promise<SettleOutcome> => {
    const { reply, row: settled } = await settle(record, "settle");
    switch (String(reply[0])) {
      case "settled":
        return { state: "settled", record: settled };
      case "stands": {
        const standing = readStanding(reply);
        if (standing.state === "charged") return correctStanding(record, reply);
        const [row, ...corrections] = standing.rows;
        return row === undefined
          ? { state: "forgotten" }
          : { state: "stands", record: chargedBy([row, ...corrections]) };
      }
      default:
        return { state: "forgotten" };
    }
  };

  /** Undefined: it has been ended meanwhile. */
  const expire = async (
    maximum: UsageRecord,
    holdTimeMs: number,
    truthOf: (lost: UsageRecord) => Promise<UsageRecord | undefined>,
  ): Promise<UsageRecord | undefined> => {
    const truth = await truthOf(lostRow(maximum, holdTimeMs));
    if (truth === undefined) return loseAs("expire", maximum, holdTimeMs);
    const outcome = await settleCall(truth);
    return outcome.state === "settled" ? outcome.record : undefined;
  };

  return {
    async hold(call) {
      const { tenant } = call.maximum;
      const [reply] = await Promise.all([askHold(call, "hold"), register(tenant)]);
      if (reply.state === "refused") throw new BudgetRefusal(reply.hits, reply.nowMs);
      return outcomeOfHold(reply);
    },

    async start({ tenant, callId }, owner) {
      const keys = moneyKeys(tenant);
      const reply = await run(
        "parleyStart",
        [keys.unstarted, keys.started, callKey(keys, callId)],
        [keys.prefix, callId, owner, HOLD_RECORD_MS],
      );
      return String(reply) as StartOutcome;
    },

    settle: settleCall,

    async release({ tenant, callId }, owner) {
      const keys = moneyKeys(tenant);
      await run("parleyRelease", [keys.unstarted, keys.started, callKey(keys, callId)], [keys.prefix, callId, owner]);
    },

    async lose(call) {
      const standing = await find(call);
      if (standing?.state !== "started" || standing.record === undefined) return undefined;
      return loseAs("lose", standing.record, standing.holdTimeMs);
    },

    async expired(truthOf = unknown) {
      await registerAgain();
      const charged: UsageRecord[] = [];
      for (const tenant of await tenants()) {
        const keys = moneyKeys(tenant);
        for (;;) {
          const lost = (await run("parleyListLost", [keys.started], [keys.prefix, LOST_PAGE])) as Buffer[];
          const before = charged.length;
          for (let at = 0; at + 2 < lost.length; at += 3) {
            const maximum = lost[at + 2];
            if (maximum === undefined) continue;
            const row = await expire(decodeRow(maximum), Number(String(lost[at + 1])), truthOf);
            if (row !== undefined) charged.push(row);
          }
          if (lost.length < 3 * LOST_PAGE || charged.length === before) break;
        }
      }
      return charged;
    },

    async correct(record) {
      const keys = moneyKeys(record.tenant);
      // Nothing has these row ids, so that the answer is what stands.
      const reply = (await run(
        "parleyCorrect",
        [callKey(keys, record.recordId), keys.ledger],
        [keys.prefix, "", "0", "0", "", "[]", 0],
      )) as RawReply;
      if (String(reply[0]) !== "stands") return { state: "forgotten" };
      return correctStanding(record, reply);
    },

    async amend(tenant, corrections) {
      const keys = moneyKeys(tenant);
      let added = 0;
      for (let at = 0; at < corrections.length; at += AMEND_PAGE) {
        const args = corrections.slice(at, at + AMEND_PAGE).flatMap(({ difference }) => {
          const { microUsd, tokens } = amountsOf(difference);
          const { recordId, correctsRecordId } = difference;
          const scopes = JSON.stringify(scopesOf(difference));
          const holdTimeMs = String(holdTimeMsOf(difference));
          return [
            recordId,
            correctsRecordId,
            String(microUsd),
            String(tokens),
            encodeRow(difference),
            scopes,
            holdTimeMs,
          ];
        });
        added += Number(await run("parleyAmend", [keys.ledger], [keys.prefix, ...args]));
      }
      return added;
    },

    find,

    async preview(call) {
      const reply = await askHold(call, "preview");
      if (reply.state !== "refused") throw new TypeError("a preview holds nothing");
      return {
        ...(reply.hits.length === 0 ? {} : { refusal: new BudgetRefusal(reply.hits, reply.nowMs) }),
        headroom: reply.headroom,
      };
    },

    ...createRedisBudgetStore({ run, budgets }),

    async ledger({ tenant, startMs, endMs, limit, after }) {
      const { ledger } = moneyKeys(tenant);
      // An entry's time is never before its hold's.
      const from = after === undefined ? `${Math.max(0, startMs)}-0` : `(${after}`;
      const entries = await connection.use((client) => client.xrangeBuffer(ledger, from, "+", "COUNT", limit));
      const rows = entries.map(([, fields]) => decodeEntry(fields));
      const last = entries.at(-1);
      return {
        rows: rows.filter((row) => holdTimeMsOf(row) >= startMs && holdTimeMsOf(row) < endMs),
        ...(last === undefined || entries.length < limit ? {} : { next: String(last[0]) }),
      };
    },

    tenants,

    async spentThisMonth(tenant) {
      const { budgets: slot, prefix } = moneyKeys(tenant);
      const [microUsd, tokens] = (await run("parleySpent", [slot], [prefix, scopeName("tenant", tenant)])) as Buffer[];
      return { microUsd: BigInt(String(microUsd)), tokens: BigInt(String(tokens)) };
    },
  };
}

/** Nobody knows more of a lost call than its hold. */
const unknown = async (): Promise<undefined> => undefined;

function callKey({ callPrefix }: MoneyKeys, callId: string): string {
  return `${callPrefix}${callId}`;
}

/** What the hold script looks up: each scope with the budgets that are configured for it and for each of its kind. */
function lookupOf(scopes: readonly ScopeName[], configured: ReturnType<ConfiguredBudgets["of"]>) {
  return scopes.map((scope) => {
    const stored = BUDGET_PERIODS.map(({ name }) =>
      budgetNames(name, scope).map((budget) => {
        const limits = configured.get(budget);
        return limits === undefined ? "" : encodeLimits(limits);
      }),
    );
    return [scope, eachOf(scope), stored];
  });
}
