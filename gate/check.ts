import type { GateFile } from "./conditions.ts";
import { type ConditionExpressions, gateExpressions } from "./expressions.ts";
import type { Query } from "./prometheus.ts";

/** `unknown`: too few samples to say. */
export type Verdict = "pass" | "fail" | "unknown";

export interface ConditionResult {
  readonly name: string;
  readonly title: string;
  readonly unit: ConditionExpressions["unit"];
  readonly verdict: Verdict;
  readonly canary: number | undefined;
  readonly stable: number | undefined;
  readonly limit: number | undefined;
}

export interface GateResult {
  readonly verdict: Verdict;
  readonly minTurns: number;
  readonly turns: { readonly canary: number; readonly stable: number };
  readonly conditions: readonly ConditionResult[];
}

/** Exit codes of `parley gate`. */
export const EXIT_CODES = { pass: 0, fail: 1, unknown: 2 } as const satisfies Record<Verdict, number>;

/** Asks Prometheus about each condition. Rejects as `query` does. */
export async function checkGate(file: GateFile, query: Query): Promise<GateResult> {
  const { turns, conditions } = gateExpressions(file);
  const [canaryTurns = 0, stableTurns = 0] = await Promise.all([query(turns.canary), query(turns.stable)]);
  // increase() extrapolates: 49.99 turns are 50.
  const enough = Math.min(Math.round(canaryTurns), Math.round(stableTurns)) >= file.minTurns;
  const results = await Promise.all(
    conditions.map(async ({ name, title, unit, needsTurns, ...expressions }): Promise<ConditionResult> => {
      const [canary, stable, limit] = await Promise.all(
        [expressions.canary, expressions.stable, expressions.limit].map(query),
      );
      const said = canary === undefined || limit === undefined ? "unknown" : canary > limit ? "fail" : "pass";
      return { name, title, unit, verdict: needsTurns && !enough ? "unknown" : said, canary, stable, limit };
    }),
  );
  const verdicts = results.map(({ verdict }) => verdict);
  const verdict = verdicts.includes("fail") ? "fail" : !enough || verdicts.includes("unknown") ? "unknown" : "pass";
  return {
    verdict,
    minTurns: file.minTurns,
    turns: { canary: canaryTurns, stable: stableTurns },
    conditions: results,
  };
}

/** The result for a person: a line for each condition, and what to do. */
export function describeGate({ verdict, turns, minTurns, conditions }: GateResult): string {
  const number = (value: number | undefined): string =>
    value === undefined ? "-" : String(Number(value.toPrecision(4)));
  const rows = [
    ["", "condition", "canary", "stable", "limit", "unit"],
    ...conditions.map((one) => [
      one.verdict,
      one.title,
      number(one.canary),
      number(one.stable),
      number(one.limit),
      one.unit,
    ]),
  ];
  const widths = rows.reduce<number[]>((wide, row) => row.map((cell, at) => Math.max(wide[at] ?? 0, cell.length)), []);
  const table = rows.map((row) =>
    row
      .map((cell, at) => cell.padEnd(widths[at] ?? 0))
      .join("  ")
      .trimEnd(),
  );
  const counted = `turns: canary ${Math.round(turns.canary)}, stable ${Math.round(turns.stable)}, at least ${minTurns} of each are needed`;
  return [...table, counted, SENTENCES[verdict], ""].join("\n");
}

const SENTENCES = {
  pass: "PASS: the canary is no worse than stable; go on to the next weight.",
  fail: "FAIL: the canary is worse than stable; take it back: canary.weight 0, canary.preview.enabled false.",
  unknown: "UNKNOWN: too few samples to say; hold the weight and ask again.",
} as const;
