import * as z from "zod";
import type { PriceRates } from "./model-price.ts";
import type { PriceOverride } from "./price-table.ts";

/**
 * The default price of models that nobody prices, in US dollars per million tokens: that of gpt-4, dear on purpose, so that
 * a budget rather stops too early than too late.
 */
const DEFAULT_PRICE_USD = { input_usd_per_million: 30, output_usd_per_million: 60 } as const;

const usd = z.number().min(0).max(1_000_000);

const rates = {
  input_usd_per_million: usd,
  cached_input_usd_per_million: usd.optional(),
  output_usd_per_million: usd,
  reasoning_usd_per_million: usd.optional(),
};

const override = z
  .strictObject({
    model: z.string().min(1),
    valid_from: z
      .string()
      .refine((text) => /^\d{4}-\d{2}-\d{2}(T[\d:.]+Z)?$/.test(text) && !Number.isNaN(Date.parse(text)), {
        error: () => "must be a date, or a time in UTC such as 2026-12-01T00:00:00Z",
      })
      .optional(),
    ...rates,
    input_usd_per_million: usd.optional(),
    output_usd_per_million: usd.optional(),
    priced_as: z.string().min(1).optional(),
  })
  .refine(
    ({ priced_as, input_usd_per_million, output_usd_per_million }) =>
      priced_as === undefined
        ? input_usd_per_million !== undefined && output_usd_per_million !== undefined
        : input_usd_per_million === undefined && output_usd_per_million === undefined,
    { error: () => "must have either priced_as, or input_usd_per_million and output_usd_per_million" },
  );

/** Section `prices` of parley.yaml. */
export const pricesYamlSchema = z
  .strictObject({
    default: z
      .strictObject({ ...rates })
      .refine(
        ({ input_usd_per_million, output_usd_per_million }) => input_usd_per_million > 0 && output_usd_per_million > 0,
        {
          error: () => "must not be free: a model that nobody prices would pass every budget",
        },
      )
      .default(DEFAULT_PRICE_USD),
    overrides: z.array(override).default([]),
  })
  .default({ default: DEFAULT_PRICE_USD, overrides: [] });

/** What the section says. */
export interface ConfiguredPrices {
  readonly defaultPrice: PriceRates;
  readonly overrides: readonly PriceOverride[];
}

export function readPrices(section: z.infer<typeof pricesYamlSchema>): ConfiguredPrices {
  return {
    defaultPrice: ratesOf(section.default),
    overrides: section.overrides.map(({ model, valid_from, priced_as, ...own }) => ({
      model,
      validFromMs: valid_from === undefined ? 0 : Date.parse(valid_from),
      price:
        priced_as === undefined
          ? ratesOf({
              ...own,
              input_usd_per_million: own.input_usd_per_million ?? 0,
              output_usd_per_million: own.output_usd_per_million ?? 0,
            })
          : { pricedAs: priced_as },
    })),
  };
}

function ratesOf(section: {
  input_usd_per_million: number;
  cached_input_usd_per_million?: number | undefined;
  output_usd_per_million: number;
  reasoning_usd_per_million?: number | undefined;
}): PriceRates {
  const micro = (dollars: number): number => Math.round(dollars * 1e6);
  return {
    input: micro(section.input_usd_per_million),
    cachedInput: micro(section.cached_input_usd_per_million ?? section.input_usd_per_million),
    output: micro(section.output_usd_per_million),
    reasoning: micro(section.reasoning_usd_per_million ?? section.output_usd_per_million),
  };
}
