import {
  type ModelPrice as BaseModelPrice,
  type ConditionalPrice,
  calcPrice,
  type PriceCalculation,
  type TieredPrices,
} from "@pydantic/genai-prices";
import type { ModelPrice, PriceBand } from "./model-price.ts";

/** Version of the bundled table, which is that of its package; a test compares the two. */
export const BASE_TABLE_VERSION = "0.1.8";

/** The bundled table's price of a model at a time, in milliseconds since the epoch; undefined: it has none. */
export function basePriceAt(model: string, timeMs: number): ModelPrice | undefined {
  const found = lookUp(model, timeMs);
  const bands = found && bandsOf(found.model_price);
  if (found === undefined || bands === undefined) return undefined;
  const prices = conditionalPrices(found);
  const active = prices.find(({ prices: some }) => some === found.model_price);
  const starts = prices.flatMap(({ constraint }) =>
    constraint?.type === "start_date" ? [Date.parse(constraint.start_date)] : [],
  );
  const span = {
    fromMs: Math.max(0, ...starts.filter((startMs) => startMs <= timeMs)),
    untilMs: Math.min(Number.MAX_SAFE_INTEGER, ...starts.filter((startMs) => startMs > timeMs)),
  };
  // Some prices change with the time of the day, always at a full minute.
  if (prices.some(({ constraint }) => constraint?.type === "time_of_date")) {
    span.fromMs = Math.max(span.fromMs, Math.floor(timeMs / MINUTE_MS) * MINUTE_MS);
    span.untilMs = Math.min(span.untilMs, span.fromMs + MINUTE_MS);
  }
  return { model, version: versionOf(found, active), ...span, bands };
}

/** All prices of a model in the bundled table by their dates. */
export function basePricesOf(model: string): ModelPrice[] {
  const found = lookUp(model, Date.parse("2000-01-01"));
  if (found === undefined) return [];
  const starts = conditionalPrices(found).flatMap(({ constraint }) =>
    constraint?.type === "start_date" ? [Date.parse(constraint.start_date)] : [],
  );
  return [0, ...starts].flatMap((startMs) => basePriceAt(model, startMs) ?? []);
}

const MINUTE_MS = 60_000;

function lookUp(model: string, timeMs: number): PriceCalculation | undefined {
  const timestamp = new Date(timeMs);
  try {
    // `provider/model` names one provider's price of it.
    return (
      calcPrice({}, model, { timestamp }) ?? calcPrice({}, model, { timestamp, providerId: "litellm" }) ?? undefined
    );
  } catch {
    // It prices something by units that are no tokens.
    return undefined;
  }
}

function conditionalPrices({ model: { prices } }: PriceCalculation): readonly ConditionalPrice[] {
  return Array.isArray(prices) ? prices : [{ prices }];
}

/** Such as `genai-prices 0.1.8 openai/o3 from 2025-06-10`. */
function versionOf({ provider, model }: PriceCalculation, active: ConditionalPrice | undefined): string {
  const { constraint } = active ?? {};
  const when =
    constraint === undefined
      ? ""
      : constraint.type === "start_date"
        ? ` from ${constraint.start_date}`
        : ` at ${constraint.start_time}`;
  return `genai-prices ${BASE_TABLE_VERSION} ${provider.id}/${model.id}${when}`;
}

/** Undefined: it prices no tokens. */
function bandsOf(price: BaseModelPrice): readonly [PriceBand, ...PriceBand[]] | undefined {
  const { input_mtok: input, output_mtok: output } = price;
  if (input === undefined && output === undefined) return undefined;
  const cached = price.cache_read_mtok ?? input;
  const reasoning = price.output_reasoning_mtok ?? output;
  const starts = [input, output, cached, reasoning].flatMap((rate) =>
    typeof rate === "object" ? rate.tiers.map(({ start }) => start) : [],
  );
  const bandAt = (abovePromptTokens: number): PriceBand => ({
    abovePromptTokens,
    input: rateAt(input, abovePromptTokens),
    cachedInput: rateAt(cached, abovePromptTokens),
    output: rateAt(output, abovePromptTokens),
    reasoning: rateAt(reasoning, abovePromptTokens),
    // The table has these by the thousand.
    perRequestMicroUsd: Math.round(rateAt(price.requests_kcount, -1) / 1_000),
  });
  return [bandAt(-1), ...[...new Set(starts)].toSorted((a, b) => a - b).map(bandAt)];
}

/** A rate for prompts just above a size, in micro USD per million; the table has US dollars. */
function rateAt(rate: number | TieredPrices | undefined, abovePromptTokens: number): number {
  if (rate === undefined) return 0;
  if (typeof rate === "number") return Math.round(rate * 1e6);
  const tier = rate.tiers.toSorted((a, b) => a.start - b.start).findLast(({ start }) => abovePromptTokens >= start);
  return Math.round((tier?.price ?? rate.base) * 1e6);
}
