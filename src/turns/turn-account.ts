import { CallOutcome, type UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import type { AccountStore } from "../accounts/account-store.ts";
import { type CallEnd, type CallFacts, createCallAccount } from "../accounts/call-account.ts";
import type { CallScopes } from "../accounts/call-scopes.ts";
import type { PriceTable } from "../accounts/price-table.ts";
import type { IntendedAttempt, ModelAttempt } from "../engine/model.ts";
import { Failure } from "../failure.ts";
import { sleep } from "../platform/sleep.ts";
import type { CallTokens } from "./turn-observer.ts";

/** Beyond its own time a call may take this long to be settled, in milliseconds; then it counts as lost. */
const SETTLE_MARGIN_MS = 30_000;

/** A step that the store did not answer is tried again after this long, and given up after so many times: the account finds the call by itself. */
const RETRY = { everyMs: 200, times: 25 } as const;

/** Who pays for a turn's calls. */
export interface Payer extends CallScopes {
  readonly turnId: string;
  /** Version of the release that makes the calls. */
  readonly version: string;
}

/** While an owner that may be alive is given time to settle, it is looked so often, in milliseconds. */
const GRACE_LOOK_MS = 25;

/** What a turn needs of accounts. */
export interface AccountPorts {
  readonly accounts: Pick<AccountStore, "hold" | "preview" | "start" | "settle" | "release" | "lose" | "find">;
  readonly prices: PriceTable;
}

/**
 * The money of one turn: steps 2, 3 and 5 of DESIGN §4. Each attempt at a model is held at its largest and marked as
 * started before it is sent, and settled when its usage stands in the log.
 */
export interface TurnAccount {
  /** A model call begins; its attempts are named after it. */
  beginCall(callId: string, agent: string): void;
  /** Holds an attempt and marks it as started. Rejects with the budget's refusal, or as the store does. */
  beforeAttempt(attempt: IntendedAttempt): Promise<void>;
  /** The attempt was not sent: its hold is given back. */
  onUnsent(): void;
  /** What came of the attempt; its row is the next that `takeRow` gives. */
  onAttempt(attempt: ModelAttempt): void;
  /** Rows of attempts that have ended, in their order. */
  takeRow(): UsageRecord | undefined;
  /** The attempt's usage is durable: charges it. Not waited for. */
  settle(row: UsageRecord): void;
  /**
   * Ends the attempts that a lost owner made at a call: what was held and not started is given back, what was started is
   * charged in full, unless the owner settles it within `graceMs`. Returns the rows of those that were charged.
   */
  loseCall(callId: string, options: { readonly graceMs: number }): Promise<UsageRecord[]>;
  /** Charges attempts that have ended and whose usage will never be durable: the lease is another's. */
  settleRest(): void;
  /** Resolves when all that was to be settled or given back is, or was given up. */
  idle(): Promise<void>;
}

export function createTurnAccount({
  accounts,
  prices,
  payer,
  owner,
  onOverHold,
  onError,
}: AccountPorts & {
  readonly payer: Payer;
  /** Name of the lease: no other has it. */
  readonly owner: string;
  /** A provider counted more of a call than was held for it. */
  readonly onOverHold: (call: CallTokens) => void;
  /** A call could not be settled; the account will charge it in full and be corrected later. */
  readonly onError: (error: unknown) => void;
}): TurnAccount {
  const { tenant } = payer;
  const calls = createCallAccount({ store: accounts, prices });
  let call = { id: "", agent: "" };
  let attempts = 0;
  let open: { readonly facts: CallFacts; readonly holdTimeMs: number } | undefined;
  const ended: UsageRecord[] = [];
  const unsettled = new Map<string, UsageRecord>();
  const pending = new Set<Promise<void>>();

  const inBackground = (work: () => Promise<unknown>): void => {
    const done: Promise<void> = retried(work)
      .then(() => undefined, onError)
      .finally(() => pending.delete(done));
    pending.add(done);
  };
  /** Holds and starts in one round trip, where the price is the expected one. */
  const holdAndStart = async (facts: CallFacts): Promise<number> => {
    const start = () => accounts.start({ tenant, callId: facts.callId }, owner);
    const [held, early] = await Promise.allSettled([calls.hold(facts), start()]);
    if (held.status === "rejected") throw held.reason;
    if (early.status === "rejected") throw early.reason;
    const started = early.value === "not_held" ? await start() : early.value;
    if (started === "started") return held.value.holdTimeMs;
    // Another owner has it, or it is over: whatever it is, it must not be sent.
    throw new Failure("LEASE_LOST", {}, { cause: new Error(`the call is ${started}`) });
  };

  return {
    beginCall(id, agent) {
      call = { id, agent };
      attempts = 0;
    },

    async beforeAttempt({ model, promptTokens, maxOutputTokens: maxCompletionTokens, timeoutMs }) {
      attempts++;
      const facts: CallFacts = {
        ...payer,
        callId: `${call.id}.${attempts}`,
        agent: call.agent,
        model,
        promptTokens,
        maxCompletionTokens,
        callMs: timeoutMs + SETTLE_MARGIN_MS,
      };
      const holdTimeMs = await retried(() => holdAndStart(facts));
      open = { facts, holdTimeMs };
    },

    onUnsent() {
      if (open === undefined) return;
      const { callId } = open.facts;
      open = undefined;
      inBackground(() => accounts.release({ tenant, callId }, owner));
    },

    onAttempt({ outcome, usage }) {
      if (open === undefined) return;
      const { facts, holdTimeMs } = open;
      open = undefined;
      const end: CallEnd = {
        promptTokens: usage.promptTokens,
        completionTokens: usage.completionTokens,
        cachedPromptTokens: usage.cachedPromptTokens ?? 0,
        reasoningTokens: usage.reasoningTokens ?? 0,
        source: usage.source,
        outcome: OUTCOMES[outcome],
      };
      const row = calls.rowOf(facts, end, holdTimeMs);
      if (calls.isOverHold(facts, row)) {
        onOverHold({
          model: facts.model,
          promptTokens: Number(row.promptTokens),
          completionTokens: Number(row.completionTokens),
        });
      }
      ended.push(row);
      unsettled.set(row.recordId, row);
    },

    takeRow: () => ended.shift(),

    settle(row) {
      unsettled.delete(row.recordId);
      inBackground(() => accounts.settle(row));
    },

    settleRest() {
      for (const row of unsettled.values()) this.settle(row);
    },

    async loseCall(callId, { graceMs }) {
      const rows: UsageRecord[] = [];
      const untilMs = performance.now() + graceMs;
      for (let attempt = 1; ; attempt++) {
        const ref = { tenant, callId: `${callId}.${attempt}` };
        let standing = await retried(() => accounts.find(ref));
        while (standing?.state === "started" && performance.now() < untilMs) {
          await sleep(GRACE_LOOK_MS);
          standing = await retried(() => accounts.find(ref));
        }
        if (standing === undefined) return rows;
        if (standing.state === "unstarted") await retried(() => accounts.release(ref, owner));
        if (standing.state === "started") await retried(() => accounts.lose(ref));
        const { record } = (await retried(() => accounts.find(ref))) ?? {};
        if (record !== undefined) rows.push(record);
      }
    },

    async idle() {
      while (pending.size > 0) await Promise.all(pending);
    },
  };
}

const OUTCOMES = {
  ok: CallOutcome.OK,
  failed: CallOutcome.FAILED,
  cancelled: CallOutcome.CANCELLED,
} as const satisfies Record<ModelAttempt["outcome"], CallOutcome>;

/** Repeats a step while the store does not answer: all are idempotent by the call's id. */
async function retried<T>(step: () => Promise<T>): Promise<T> {
  for (let tried = 1; ; tried++) {
    try {
      return await step();
    } catch (error) {
      const passes = error instanceof Failure && error.reason === "STORE_UNAVAILABLE" && tried < RETRY.times;
      if (!passes) throw error;
      await sleep(RETRY.everyMs);
    }
  }
}
