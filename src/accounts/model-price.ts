/** What tokens cost. All amounts are integers: millionths of a US dollar per million tokens. */
export interface PriceRates {
  /** Prompt tokens. */
  readonly input: number;
  /** Prompt tokens that the provider had cached. */
  readonly cachedInput: number;
  /** Completion tokens. */
  readonly output: number;
  /** Completion tokens spent on reasoning. */
  readonly reasoning: number;
}

/** Rates of calls whose prompt is larger than so many tokens; some providers price long prompts higher. */
export interface PriceBand extends PriceRates {
  readonly abovePromptTokens: number;
  /** What a call costs beside its tokens, in millionths of a US dollar. */
  readonly perRequestMicroUsd: number;
}

/** A model's price in a span of time. */
export interface ModelPrice {
  readonly model: string;
  /** Stands with each row that it priced; empty: nobody prices the model. */
  readonly version: string;
  /** Holds from then until just before `untilMs`, in milliseconds since the epoch. */
  readonly fromMs: number;
  readonly untilMs: number;
  /** By size of the prompt, the smallest first. */
  readonly bands: readonly [PriceBand, ...PriceBand[]];
}

/** Tokens of a call by kind. Cached ones are part of the prompt, reasoning is part of the completion. */
export interface TokenCounts {
  readonly promptTokens: number;
  readonly cachedPromptTokens: number;
  readonly completionTokens: number;
  readonly reasoningTokens: number;
}

/**
 * What a call costs in millionths of a US dollar, rounded half up, once, over the whole call. A part that is counted larger
 * than its whole counts as the whole.
 */
export function costMicroUsd(price: ModelPrice, counts: TokenCounts): bigint {
  const prompt = Math.max(0, counts.promptTokens);
  const cached = Math.min(prompt, Math.max(0, counts.cachedPromptTokens));
  const completion = Math.max(0, counts.completionTokens);
  const reasoning = Math.min(completion, Math.max(0, counts.reasoningTokens));
  const [first, ...others] = price.bands;
  const band = others.findLast(({ abovePromptTokens }) => prompt > abovePromptTokens) ?? first;
  const total =
    BigInt(prompt - cached) * BigInt(band.input) +
    BigInt(cached) * BigInt(band.cachedInput) +
    BigInt(completion - reasoning) * BigInt(band.output) +
    BigInt(reasoning) * BigInt(band.reasoning);
  return BigInt(band.perRequestMicroUsd) + (total + HALF_A_MILLION) / MILLION;
}

/**
 * What so many calls cost at most that together have no more than so many tokens, whoever of the priced models answers and
 * whatever kinds of tokens they are.
 */
export function largestCostOfCalls(
  prices: readonly ModelPrice[],
  { totalTokens, calls }: { totalTokens: number; calls: number },
): bigint {
  const bands = prices.flatMap(({ bands: [first, ...others] }) => [
    first,
    ...others.filter(({ abovePromptTokens }) => abovePromptTokens < totalTokens),
  ]);
  const rate = Math.max(...bands.map((band) => Math.max(band.input, band.cachedInput, band.output, band.reasoning)));
  const perRequest = Math.max(...bands.map(({ perRequestMicroUsd }) => perRequestMicroUsd));
  // Each call is rounded by itself.
  return (BigInt(totalTokens) * BigInt(rate)) / MILLION + 1n + BigInt(calls) * BigInt(perRequest + 1);
}

/** What a call costs at most, if its prompt and its completion have no more than so many tokens, of whatever kinds. */
export function largestCostMicroUsd(
  price: ModelPrice,
  { promptTokens, maxCompletionTokens }: { promptTokens: number; maxCompletionTokens: number },
): bigint {
  let largest = 0n;
  for (const band of price.bands) {
    if (band.abovePromptTokens >= promptTokens && band !== price.bands[0]) continue;
    const total =
      BigInt(promptTokens) * BigInt(Math.max(band.input, band.cachedInput)) +
      BigInt(maxCompletionTokens) * BigInt(Math.max(band.output, band.reasoning));
    const cost = BigInt(band.perRequestMicroUsd) + (total + HALF_A_MILLION) / MILLION;
    if (cost > largest) largest = cost;
  }
  return largest;
}

const MILLION = 1_000_000n;
const HALF_A_MILLION = 500_000n;
