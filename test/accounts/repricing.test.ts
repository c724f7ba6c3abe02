import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { CallOutcome, UsageRecordSchema } from "../../gen/parley/usage/v1/usage_record_pb.js";
import { largestCostMicroUsd } from "../../src/accounts/model-price.ts";
import { createPriceTable } from "../../src/accounts/price-table.ts";
import { repriced } from "../../src/accounts/repricing.ts";

const MODEL = "deep";
/** Its reasoning costs more than its other output, as a lost call's may have been all reasoning. */
function tableOf(reasoning: number) {
  const price = { input: 1_000_000, cachedInput: 1_000_000, output: 2_000_000, reasoning };
  return createPriceTable({ overrides: [{ model: MODEL, validFromMs: 0, price }], defaultPrice: price });
}

test("a call that was charged in full is priced anew in full", async () => {
  const before = tableOf(8_000_000);
  const call = { promptTokens: 100, maxCompletionTokens: 50 };
  const lost = create(UsageRecordSchema, {
    recordId: "t.1.1",
    model: MODEL,
    promptTokens: 100n,
    completionTokens: 50n,
    costMicroUsd: largestCostMicroUsd(before.at(MODEL, 1_000), call),
    priceVersion: before.at(MODEL, 1_000).version,
    usageSource: UsageSource.HOLD_MAXIMUM,
    outcome: CallOutcome.LOST,
    holdTime: timestampFromMs(1_000),
  });
  const differences = async (prices: ReturnType<typeof tableOf>) => {
    const rows = (async function* () {
      yield lost;
    })();
    return (await repriced(rows, { prices, model: "" })).corrections.map(({ difference }) => difference.costMicroUsd);
  };
  // No price has changed.
  expect(await differences(before)).toEqual([]);
  expect(await differences(tableOf(10_000_000))).toEqual([100n]);
});
