import { knownSeries } from "./known-metrics.ts";
import { promqlNames } from "./promql-names.ts";

/** What is wrong with the names in a query: series and labels that nobody exports. Nothing: all exist. */
export function unknownNames(expr: string, recorded: ReadonlyMap<string, ReadonlySet<string>> = new Map()): string[] {
  const known = knownSeries();
  const { selectors, grouping } = promqlNames(expr);
  const problems: string[] = [];
  const labels = new Set<string>();
  for (const { name, labels: selected } of selectors) {
    const has = known.get(name) ?? recorded.get(name);
    if (has === undefined) problems.push(`there is no ${name}`);
    for (const label of has ?? []) labels.add(label);
    for (const label of selected) if (has?.has(label) === false) problems.push(`${name} has no label ${label}`);
  }
  for (const label of grouping) if (!labels.has(label)) problems.push(`nothing in it has the label ${label}`);
  return problems;
}
