import type { Headroom } from "../../gen/parley/chat/v1/headroom_pb.js";
import type { Budget } from "../../gen/parley/usage/v1/budget_pb.js";
import type { UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import type { PeriodName } from "./budget-periods.ts";
import type { BudgetHit, BudgetRefusal } from "./budget-refusal.ts";
import type { BudgetLimits } from "./budgets.ts";
import type { ScopeName } from "./call-scopes.ts";
import type { Amounts } from "./usage-amounts.ts";

/** A model call of an account. Its id is that of its ledger row: turn, attempt and call. */
export interface CallRef {
  readonly tenant: string;
  readonly callId: string;
}

/** A call that is about to be made. */
export interface CallToHold {
  /**
   * The call at its largest: who pays, model, price version, and the tokens and the cost that cannot be exceeded. This is
   * the row that is written, with outcome LOST and source HOLD_MAXIMUM, if the call's owner is lost. `tenant` and
   * `recordId` are the call's name; `holdTime` need not be set.
   */
  readonly maximum: UsageRecord;
  /** Once started, the call counts as lost after this many milliseconds: its timeout and a margin. */
  readonly callMs: number;
  /**
   * When the price of `maximum` holds, in milliseconds since the epoch. A call has the price of its hold's time, by the
   * store's clock, which only the store knows. Absent: always.
   */
  readonly priceSpan?: { readonly fromMs: number; readonly untilMs: number };
}

export type HoldOutcome =
  | {
      /** The amounts are held now, or were already; `start` comes next. */
      readonly state: "held";
      readonly holdTimeMs: number;
      /** Budgets with `dry_run` that would have refused the call. Empty when it was held before. */
      readonly wouldRefuse: readonly BudgetHit[];
    }
  /** Nothing was held: the price has changed. Price the call at this time and hold it again. */
  | { readonly state: "price_changed"; readonly nowMs: number }
  /** The call has been started, or has ended, before; see {@link AccountStore.find}. Nothing was held anew. */
  | { readonly state: "started" | "ended"; readonly holdTimeMs: number };

export type StartOutcome =
  /** Marked as started by this owner. Only now may the request be sent. */
  | "started"
  /** Another owner has marked it before: the request may have been sent, and must not be sent again. */
  | "started_by_other"
  /** There is no such hold: it was never made, or expired. Hold the call again. */
  | "not_held"
  /** The call was settled, charged or released. Do not send. */
  | "ended";

/** What an account knows of a call. */
export interface CallStanding {
  /**
   * `unstarted` and `started`: held. `settled`: has its row. `charged`: was lost, its row is the whole hold. `released`:
   * never sent.
   */
  readonly state: "unstarted" | "started" | "settled" | "charged" | "released";
  readonly holdTimeMs: number;
  /** While held the call at its largest; then what is charged for it, corrections added. Absent when released. */
  readonly record?: UsageRecord;
}

export type SettleOutcome =
  | {
      /** `settled`: now, by this. `stands`: before; nothing was changed. `corrected`: it had been charged as lost. */
      readonly state: "settled" | "stands" | "corrected";
      /** What is charged for the call. */
      readonly record: UsageRecord;
    }
  /**
   * Nobody knows the call, and its hold is so long ago that it may have been settled and forgotten: nothing was charged.
   */
  | { readonly state: "forgotten" };

/** Rows of the ledger, oldest first. */
export interface LedgerPage {
  readonly rows: readonly UsageRecord[];
  /** Where the next page begins; absent: there is none now. */
  readonly next?: string;
}

/** A correction of a row that stands in the ledger, whether or not its call is still known. */
export interface LedgerCorrection {
  /** Differences, with the labels and the hold's time of the row; `correctsRecordId` names the row. Its `recordId` makes it idempotent. */
  readonly difference: UsageRecord;
}

/**
 * What calls cost and who may make them. One account per tenant.
 *
 * Amounts are integers, micro US dollars and tokens. Time is the store's own. A hold stands beside the spend counters and
 * never in them; counters and ledger change in one step, so that the ledger's rows of a period add up to the counters of
 * that period, always. A call belongs to the hour, the day and the month of its hold, in UTC.
 *
 * Any operation may reject with STORE_UNAVAILABLE; then it may or may not have happened, and may be repeated: all are
 * idempotent by call id. Ids of calls that have ended are remembered for {@link CALL_MEMORY_MS}.
 */
export interface AccountStore {
  /**
   * Holds the call's largest amounts on all its scopes, or on none. On each budget of them, money and tokens apart: what
   * is spent, what is held and what is wanted must not be more than the limit together. Rejects with a
   * {@link BudgetRefusal} otherwise. A hold that is not started within {@link UNSTARTED_HOLD_MS} expires by itself.
   */
  hold(call: CallToHold): Promise<HoldOutcome>;
  /**
   * Marks a held call as started by an owner (a name that no other process and no other lease has). Repeating it as the
   * same owner succeeds.
   */
  start(call: CallRef, owner: string): Promise<StartOutcome>;
  /**
   * Ends a call: removes its hold, raises the spend counters and appends its row, in one step. `record.recordId` is the
   * call's id. `holdTime` is mended where it is not the hold's, which costs a further round trip; whoever settles a call that may
   * be a day old must know it. A call that was charged as lost is corrected. A call that the store lost is
   * charged all the same, for it was made.
   */
  settle(record: UsageRecord): Promise<SettleOutcome>;
  /**
   * Gives a hold back: the call was never sent, surely. Of a started call only its owner can say so. No-op for a call that
   * is not held.
   */
  release(call: CallRef, owner: string): Promise<void>;
  /**
   * Charges a started call in full, now: its owner is lost. Undefined: it is not started. If the owner settles it after
   * all, that is a correction.
   */
  lose(call: CallRef): Promise<UsageRecord | undefined>;
  /**
   * Ends started calls past their time, of all accounts: by what `truthOf` knows of them, which is told their rows, else charged
   * in full. Returns their rows. A call stays as it is until its truth can be told: where `truthOf` rejects, this does. To be
   * called now and then.
   */
  expired(truthOf?: (lost: UsageRecord) => Promise<UsageRecord | undefined>): Promise<UsageRecord[]>;
  /**
   * Makes what is charged for a call equal to `record`: appends a row with the differences and moves the counters. Changes
   * nothing where they are equal already.
   */
  correct(record: UsageRecord): Promise<SettleOutcome>;
  /** Appends corrections of rows, in one step for each account; those that stand already change nothing. Returns how many were new. */
  amend(tenant: string, corrections: readonly LedgerCorrection[]): Promise<number>;
  /** What is known of a call. */
  find(call: CallRef): Promise<CallStanding | undefined>;

  /** What `hold` would do, and what is left of each budget of the scopes. Holds nothing. */
  preview(call: CallToHold): Promise<{ readonly refusal?: BudgetRefusal; readonly headroom: readonly Headroom[] }>;
  /** All budgets of an account, with what is spent and held now. By scope, then by period. */
  budgets(tenant: string): Promise<Budget[]>;
  /** Makes, replaces or, without any limit, removes a budget; returns it as it is now. */
  setBudget(tenant: string, budget: { scope: ScopeName; period: PeriodName } & BudgetLimits): Promise<Budget>;
  /**
   * Rows whose hold was made in [startMs, endMs), in the order in which they were appended; at most `limit`, and perhaps
   * fewer though there are more. Rows older than {@link LEDGER_MS} are gone.
   */
  ledger(query: {
    readonly tenant: string;
    readonly startMs: number;
    readonly endMs: number;
    readonly limit: number;
    /** `next` of the page before. */
    readonly after?: string;
  }): Promise<LedgerPage>;
  /** Accounts that have held a call within the time that the ledger keeps rows, or longer. */
  tenants(): Promise<string[]>;
  /** What the account's spend counter says of the running month. */
  spentThisMonth(tenant: string): Promise<Amounts>;
}

/** A hold that is not started is gone after this long, in milliseconds: far above two round trips, and short for a user who is refused because of it. */
export const UNSTARTED_HOLD_MS = 30_000;

/** A call that has ended is remembered this long, in milliseconds: as long as idempotency keys (DESIGN §4). */
export const CALL_MEMORY_MS = 24 * 3_600_000;

/** Rows stay in the ledger this long, in milliseconds: last month can be exported all through this one. */
export const LEDGER_MS = 62 * 24 * 3_600_000;

/** A period's counters stay this long after its end, in milliseconds: calls that began in it have all ended by then. */
export const COUNTER_SLACK_MS = 2 * 24 * 3_600_000;
