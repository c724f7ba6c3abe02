import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Headroom } from "../../gen/parley/chat/v1/headroom_pb.js";
import type { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { type CallOutcome, type UsageRecord, UsageRecordSchema } from "../../gen/parley/usage/v1/usage_record_pb.js";
import type { AccountStore, CallToHold } from "./account-store.ts";
import type { BudgetHit, BudgetRefusal } from "./budget-refusal.ts";
import type { CallScopes } from "./call-scopes.ts";
import { costMicroUsd, largestCostMicroUsd, type ModelPrice, type TokenCounts } from "./model-price.ts";
import type { PriceTable } from "./price-table.ts";
import { holdTimeMsOf } from "./usage-amounts.ts";

/** A model call, as its turn knows it before it is made. All of it can be read again from the turn's log. */
export interface CallFacts extends CallScopes {
  /** Turn, attempt and call; unique in the account. The id of the call's ledger row. */
  readonly callId: string;
  readonly turnId: string;
  readonly agent: string;
  /** The model, as it is priced. */
  readonly model: string;
  /** Version of the release that makes the call. */
  readonly version: string;
  /** Tokens of the prompt; a bound where the tokenizer is unknown. */
  readonly promptTokens: number;
  /** Bound that is sent with the request. */
  readonly maxCompletionTokens: number;
  /** Once started, the call counts as lost after this many milliseconds. */
  readonly callMs: number;
}

/** How a call ended. */
export interface CallEnd extends TokenCounts {
  readonly source: UsageSource;
  readonly outcome: CallOutcome;
}

/** Calls with their prices: what a turn runner says to an account. */
export interface CallAccount {
  /**
   * Holds the largest amounts that the call can come to, at the price of the hold's time. Rejects as
   * {@link AccountStore.hold} does.
   */
  hold(call: CallFacts): Promise<PricedHold>;
  /** What `hold` would do. `maxCostMicroUsd` is what it would hold. */
  preview(call: CallFacts): Promise<{
    readonly refusal?: BudgetRefusal;
    readonly headroom: readonly Headroom[];
    readonly maxCostMicroUsd: bigint;
  }>;
  /**
   * The row of a call that has ended, priced at its hold's time: what `usage_recorded` says and what
   * {@link AccountStore.settle} takes. A pure function of its arguments, so that a takeover makes the same row.
   */
  rowOf(call: CallFacts, end: CallEnd, holdTimeMs: number): UsageRecord;
  /**
   * Whether a call's row is more than what was held for it, in tokens or in money. Our count of a prompt is the provider's or
   * more, and our bound of the output is sent along, so that only a provider that counts or obeys otherwise makes it so.
   */
  isOverHold(call: CallFacts, row: UsageRecord): boolean;
}

export type PricedHold =
  | {
      readonly state: "held";
      readonly holdTimeMs: number;
      readonly heldMicroUsd: bigint;
      readonly wouldRefuse: readonly BudgetHit[];
    }
  /** It was started, or has ended, before. */
  | { readonly state: "started" | "ended"; readonly holdTimeMs: number };

/** Prices change rarely; a hold that finds them changed this often meets a clock that is out of order. */
const REPRICINGS = 5;

export function createCallAccount({
  store,
  prices,
  now = Date.now,
}: {
  store: Pick<AccountStore, "hold" | "preview">;
  prices: Pick<PriceTable, "at">;
  /** The process's clock, in milliseconds since the epoch; the store's decides. For tests. */
  now?: () => number;
}): CallAccount {
  const toHold = (call: CallFacts, price: ModelPrice): CallToHold => ({
    maximum: create(UsageRecordSchema, {
      ...labelsOf(call),
      promptTokens: BigInt(call.promptTokens),
      completionTokens: BigInt(call.maxCompletionTokens),
      costMicroUsd: largestCostMicroUsd(price, call),
      priceVersion: price.version,
    }),
    callMs: call.callMs,
    priceSpan: { fromMs: price.fromMs, untilMs: price.untilMs },
  });

  return {
    async hold(call) {
      let timeMs = now();
      for (let tries = 0; tries < REPRICINGS; tries += 1) {
        const asked = toHold(call, prices.at(call.model, timeMs));
        const outcome = await store.hold(asked);
        if (outcome.state === "price_changed") {
          timeMs = outcome.nowMs;
          continue;
        }
        return outcome.state === "held" ? { ...outcome, heldMicroUsd: asked.maximum.costMicroUsd } : outcome;
      }
      throw new Error("the price of a call changed at each try to hold it");
    },

    async preview(call) {
      const asked = toHold(call, prices.at(call.model, now()));
      return { ...(await store.preview(asked)), maxCostMicroUsd: asked.maximum.costMicroUsd };
    },

    rowOf(call, end, holdTimeMs) {
      const counts = trusted(end);
      const price = prices.at(call.model, holdTimeMs);
      return create(UsageRecordSchema, {
        ...labelsOf(call),
        promptTokens: BigInt(counts.promptTokens),
        cachedPromptTokens: BigInt(counts.cachedPromptTokens),
        completionTokens: BigInt(counts.completionTokens),
        reasoningTokens: BigInt(counts.reasoningTokens),
        costMicroUsd: costMicroUsd(price, counts),
        priceVersion: price.version,
        usageSource: end.source,
        outcome: end.outcome,
        holdTime: timestampFromMs(holdTimeMs),
      });
    },

    isOverHold(call, row) {
      const heldTokens = BigInt(call.promptTokens) + BigInt(call.maxCompletionTokens);
      const heldMicroUsd = largestCostMicroUsd(prices.at(call.model, holdTimeMsOf(row)), call);
      return row.promptTokens + row.completionTokens > heldTokens || row.costMicroUsd > heldMicroUsd;
    },
  };
}

function labelsOf(call: CallFacts) {
  const { callId: recordId, tenant, team, userId, useCase, sessionId, turnId, agent, model, version } = call;
  return { recordId, tenant, team, userId, useCase, sessionId, turnId, agent, model, version };
}

/** The contract's counts are 32 bits wide (`TokenUsage`). */
const MOST_TOKENS = 2 ** 31 - 1;

/** Counts as they can stand in a row: whole, not negative, and no part larger than its whole. */
function trusted({ promptTokens, cachedPromptTokens, completionTokens, reasoningTokens }: TokenCounts): TokenCounts {
  const count = (value: number, most: number): number => Math.min(most, Math.max(0, Math.trunc(value) || 0));
  const prompt = count(promptTokens, MOST_TOKENS);
  const completion = count(completionTokens, MOST_TOKENS);
  return {
    promptTokens: prompt,
    cachedPromptTokens: count(cachedPromptTokens, prompt),
    completionTokens: completion,
    reasoningTokens: count(reasoningTokens, completion),
  };
}
