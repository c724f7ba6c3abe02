/** What usage is grouped by on the page. */
export const COST_DIMENSIONS = ["team", "user", "use_case", "agent", "model", "version"] as const;
export type CostDimension = (typeof COST_DIMENSIONS)[number];

export const COST_RANGES = ["day", "week", "month", "this-month", "last-month"] as const;
export type CostRange = (typeof COST_RANGES)[number];

/** What the Costs page shows, as it stands in its address. */
export interface CostsAddress {
  readonly range: CostRange;
  /** Length of time of a bar. */
  readonly each: "hour" | "day";
  readonly by: CostDimension;
  /** Only this group's; empty is a group too: of what has no team, say. */
  readonly group?: string;
  /** Only this session's. */
  readonly session?: string;
  /** Only this turn's. */
  readonly turn?: string;
}

const COSTS = /^#\/costs(?:\?(.*))?$/;

/** What an address shows; undefined: it is not one of the Costs page. What cannot be read is as if it were not there. */
export function parseCostsAddress(hash: string): CostsAddress | undefined {
  const found = COSTS.exec(hash);
  if (found === null) return undefined;
  const query = new URLSearchParams(found[1] ?? "");
  const range = COST_RANGES.find((known) => known === query.get("range")) ?? "day";
  const named = (name: "group" | "session" | "turn") => {
    const value = query.get(name);
    return value === null ? {} : { [name]: value };
  };
  return {
    range,
    each: eachOf(range, query.get("each")),
    by: COST_DIMENSIONS.find((known) => known === query.get("by")) ?? "team",
    ...named("group"),
    ...named("session"),
    ...named("turn"),
  };
}

export function formatCostsAddress({ range, each, by, group, session, turn }: CostsAddress): string {
  const query = new URLSearchParams({ range, each: eachOf(range, each), by });
  for (const [name, value] of Object.entries({ group, session, turn })) if (value !== undefined) query.set(name, value);
  return `#/costs?${query}`;
}

/** A month of hours is more bars than a screen has room for. */
export function mayBeHours(range: CostRange): boolean {
  return range === "day" || range === "week";
}

function eachOf(range: CostRange, wanted: string | null): "hour" | "day" {
  if (!mayBeHours(range)) return "day";
  return wanted === "hour" || wanted === "day" ? wanted : range === "day" ? "hour" : "day";
}
