import { create } from "@bufbuild/protobuf";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { type UsageRecord, UsageRecordSchema } from "../../gen/parley/usage/v1/usage_record_pb.js";
import type { LedgerCorrection } from "./account-store.ts";
import { costMicroUsd, largestCostMicroUsd, type ModelPrice } from "./model-price.ts";
import type { PriceTable } from "./price-table.ts";
import { chargedBy, differenceRow, holdTimeMsOf } from "./usage-amounts.ts";

/** What pricing rows anew would change. */
export interface Repricing {
  readonly corrections: readonly LedgerCorrection[];
  /** New costs less old ones. */
  readonly differenceMicroUsd: bigint;
  /** Tells this difference from any other: of other rows, or by other prices. */
  readonly token: string;
}

/** Prices calls anew, each by the prices that hold for its hold's time now. Keeps the range's calls in memory. */
export async function repriced(
  rows: AsyncIterable<UsageRecord>,
  { prices, model }: { prices: Pick<PriceTable, "at"> /** Only this model; empty: all. */; model: string },
): Promise<Repricing> {
  const calls = new Map<string, [UsageRecord, ...UsageRecord[]]>();
  for await (const row of rows) {
    if (model !== "" && row.model !== model) continue;
    const parts = calls.get(row.correctsRecordId || row.recordId);
    if (parts !== undefined) parts.push(row);
    else if (row.correctsRecordId === "") calls.set(row.recordId, [row]);
  }
  const corrections: LedgerCorrection[] = [];
  let differenceMicroUsd = 0n;
  for (const parts of calls.values()) {
    const charged = chargedBy(parts);
    const price = prices.at(charged.model, holdTimeMsOf(charged));
    const cost = costOf(charged, price);
    const priced = charged.priceVersion === "" && price.version !== "";
    if (cost === charged.costMicroUsd && !priced) continue;
    const truth = create(UsageRecordSchema, { ...charged, costMicroUsd: cost, priceVersion: price.version });
    const difference = differenceRow(charged, truth, `${charged.recordId}/repriced-${parts.length}`);
    corrections.push({ difference });
    differenceMicroUsd += difference.costMicroUsd;
  }
  return { corrections, differenceMicroUsd, token: await tokenOf(corrections) };
}

/** What nobody knows better than its hold is charged as it is held: of whatever kinds its tokens were. */
function costOf(charged: UsageRecord, price: ModelPrice): bigint {
  const promptTokens = Number(charged.promptTokens);
  const completionTokens = Number(charged.completionTokens);
  if (charged.usageSource === UsageSource.HOLD_MAXIMUM) {
    return largestCostMicroUsd(price, { promptTokens, maxCompletionTokens: completionTokens });
  }
  return costMicroUsd(price, {
    promptTokens,
    cachedPromptTokens: Number(charged.cachedPromptTokens),
    completionTokens,
    reasoningTokens: Number(charged.reasoningTokens),
  });
}

async function tokenOf(corrections: readonly LedgerCorrection[]): Promise<string> {
  const lines = corrections.map(
    ({ difference: { recordId, costMicroUsd: cost, priceVersion } }) => `${recordId} ${cost} ${priceVersion}`,
  );
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(lines.toSorted().join("\n")));
  return new Uint8Array(digest).toBase64({ alphabet: "base64url", omitPadding: true });
}
