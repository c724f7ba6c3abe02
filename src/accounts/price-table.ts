import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Price, PriceSchema } from "../../gen/parley/usage/v1/price_pb.js";
import { basePriceAt, basePricesOf } from "./base-prices.ts";
import type { ModelPrice, PriceBand, PriceRates } from "./model-price.ts";

/** A price of the configuration: from then on it takes the place of what the base table says. */
export interface PriceOverride {
  readonly model: string;
  /** Milliseconds since the epoch; 0: always. */
  readonly validFromMs: number;
  /** The price itself, or the name of a model that the base table prices. */
  readonly price: PriceRates | { readonly pricedAs: string };
}

export interface PriceTable {
  /**
   * The price of a model at a time, in milliseconds since the epoch, and how long it holds. A model that nobody prices has
   * the default price and an empty version: its tokens are unpriced, and never free.
   */
  at(model: string, timeMs: number): ModelPrice;
  /** Prices that hold, have held and will hold, by model, then by time: of one model, or of all that the service knows. */
  list(model?: string): Price[];
}

/**
 * Prices by model and time: the overrides, else the bundled table of @pydantic/genai-prices, else the default price.
 * Nothing is fetched: a release has the prices that it was built with, and its overrides.
 */
export function createPriceTable({
  overrides,
  defaultPrice,
  models = [],
}: {
  overrides: readonly PriceOverride[];
  defaultPrice: PriceRates;
  /** Models that `list` shows beside those of the overrides. */
  models?: readonly string[];
}): PriceTable {
  const byModel = new Map<string, PriceOverride[]>();
  for (const override of overrides.toSorted((a, b) => a.validFromMs - b.validFromMs)) {
    byModel.set(override.model, [...(byModel.get(override.model) ?? []), override]);
  }
  // A model's last price; the next call is nearly always at its time too.
  const last = new Map<string, ModelPrice>();

  const find = (model: string, timeMs: number): ModelPrice => {
    const own = byModel.get(model) ?? [];
    const index = own.findLastIndex(({ validFromMs }) => validFromMs <= timeMs);
    const untilMs = own[index + 1]?.validFromMs ?? Number.MAX_SAFE_INTEGER;
    const override = own[index];
    if (override === undefined) return until(baseAt(model, timeMs), untilMs);
    const { price, validFromMs } = override;
    if ("pricedAs" in price) {
      const base = until(baseAt(price.pricedAs, timeMs), untilMs);
      return { ...base, model, fromMs: Math.max(base.fromMs, validFromMs) };
    }
    return { model, version: overrideVersion(override, price), fromMs: validFromMs, untilMs, bands: [bandOf(price)] };
  };
  const baseAt = (model: string, timeMs: number): ModelPrice =>
    basePriceAt(model, timeMs) ?? {
      model,
      version: "",
      fromMs: 0,
      untilMs: Number.MAX_SAFE_INTEGER,
      bands: [bandOf(defaultPrice)],
    };

  return {
    at(model, timeMs) {
      const known = last.get(model);
      if (known !== undefined && known.fromMs <= timeMs && timeMs < known.untilMs) return known;
      const price = find(model, timeMs);
      last.set(model, price);
      return price;
    },

    list(model) {
      const names = model === undefined ? [...new Set([...byModel.keys(), ...models])].toSorted() : [model];
      return names.flatMap((name) => {
        const own = byModel.get(name) ?? [];
        const firstMs = own[0]?.validFromMs ?? Number.MAX_SAFE_INTEGER;
        const base = basePricesOf(name).filter(({ fromMs }) => fromMs < firstMs);
        const set = own.flatMap(({ validFromMs }) => find(name, validFromMs));
        const all = [...base, ...set];
        return (all.length === 0 ? [find(name, 0)] : all).map(priceView);
      });
    },
  };
}

function until(price: ModelPrice, untilMs: number): ModelPrice {
  return price.untilMs <= untilMs ? price : { ...price, untilMs };
}

/** Says all that the price depends on: another rate under the same date is another version. */
function overrideVersion({ validFromMs }: PriceOverride, rates: PriceRates): string {
  const { input, cachedInput, output, reasoning } = rates;
  const from = validFromMs === 0 ? "always" : new Date(validFromMs).toISOString();
  return `config ${from} ${input}/${cachedInput}/${output}${reasoning === output ? "" : `/${reasoning}`}`;
}

function bandOf(rates: PriceRates): PriceBand {
  return { ...rates, abovePromptTokens: -1, perRequestMicroUsd: 0 };
}

/** As the contract has it; of a price by bands the first. */
function priceView({ model, version, fromMs, bands: [first] }: ModelPrice): Price {
  return create(PriceSchema, {
    model,
    priceVersion: version,
    validFrom: timestampFromMs(fromMs),
    inputMicroUsdPerMillion: BigInt(first.input),
    cachedInputMicroUsdPerMillion: BigInt(first.cachedInput),
    outputMicroUsdPerMillion: BigInt(first.output),
  });
}
