// Money is an int64 of micro US dollars from the ledger to the page. No amount ever becomes a floating point number; only
// heights of bars do.

const MICRO_PER_USD = 1_000_000n;
const MICRO_DIGITS = 6;

/** `$1,234.50`: exact, with as many decimals as it takes and at least two, or as many as are asked for. */
export function moneyText(microUsd: bigint, decimals = decimalsOf([microUsd])): string {
  const size = microUsd < 0n ? -microUsd : microUsd;
  const fraction = fractionOf(size).slice(0, decimals);
  return `${microUsd < 0n ? "−" : ""}$${(size / MICRO_PER_USD).toLocaleString("en")}.${fraction}`;
}

/** Decimals, 2 to 6, with which each of the amounts is shown exactly: those of a column, so that its points stand in line. */
export function decimalsOf(amountsMicroUsd: Iterable<bigint>): number {
  let decimals = 2;
  for (const amount of amountsMicroUsd) {
    decimals = Math.max(decimals, fractionOf(amount < 0n ? -amount : amount).replace(/0+$/, "").length);
  }
  return decimals;
}

/** `1234.567890`, for programs: all decimals, a plain minus and no sign of a currency. */
export function plainUsd(microUsd: bigint): string {
  const size = microUsd < 0n ? -microUsd : microUsd;
  return `${microUsd < 0n ? "-" : ""}${size / MICRO_PER_USD}.${fractionOf(size)}`;
}

function fractionOf(size: bigint): string {
  return (size % MICRO_PER_USD).toString().padStart(MICRO_DIGITS, "0");
}

/** Where a chart's lines are: up to six steps of 1, 2 or 5 times a power of ten, the last not below the largest amount. */
export function scaleOf(largestMicroUsd: bigint): readonly bigint[] {
  const largest = largestMicroUsd > 0n ? largestMicroUsd : 1n;
  for (let power = 1n; ; power *= 10n) {
    for (const factor of [1n, 2n, 5n]) {
      const step = factor * power;
      const count = (largest + step - 1n) / step;
      if (count <= 6n) return Array.from({ length: Number(count) + 1 }, (_, index) => step * BigInt(index));
    }
  }
}
