import { rise } from "../sidecar/promql.ts";
import type { ConditionName, GateFile } from "./conditions.ts";

/** What the gate reads; test/gate holds it to the tables of metrics. */
export const GATE_METRICS = {
  turns: "parley_turns_total",
  turnsInFlight: "parley_turns_in_flight",
  timeToFirstToken: "parley_time_to_first_token_seconds_bucket",
  breakerState: "parley_breaker_state",
  /** The sidecar's, by the version that the ledger's record names; its own track says nothing. */
  cost: "parley_cost_usd_total",
  unreadable: "parley_unreadable_sessions_total",
} as const;

/**
 * A condition as PromQL. Both sides are vectors by namespace, so that two installations on one Prometheus stay apart; either
 * is empty or NaN where there is nothing to say.
 */
export interface ConditionExpressions {
  readonly name: ConditionName;
  /** What it is, for people. */
  readonly title: string;
  readonly unit: "ratio" | "s" | "microUSD" | "sessions";
  readonly canary: string;
  readonly stable: string;
  /** The condition fails where `canary` is above this. */
  readonly limit: string;
  /** Whether it says nothing below the minimum of turns. */
  readonly needsTurns: boolean;
}

export interface GateExpressions {
  /** Turns that ended in the window. */
  readonly turns: { readonly canary: string; readonly stable: string };
  readonly conditions: readonly ConditionExpressions[];
}

type Track = keyof GateFile["tracks"];

/** The one form of the conditions that the command, the alert, Flagger and Argo all use. */
export function gateExpressions({ window, selector, tracks, conditions }: GateFile): GateExpressions {
  const of = (track: Track, ...more: string[]): string =>
    [selector, tracks[track], ...more].filter((one) => one !== "").join(",");
  /** What runs now on a track: it is not to be judged by the one before it. */
  const running = (track: Track): string =>
    `group by (namespace, version) (${GATE_METRICS.turnsInFlight}{${of(track)}})`;
  const increase = (track: Track, metric: string, labels: string): string =>
    `(${rise(`${metric}{${labels}}`, window)}) and on (namespace, version) ${running(track)}`;
  const turns = (track: Track): string => `sum by (namespace) (${increase(track, GATE_METRICS.turns, of(track))})`;
  /** 0 for a track that is scraped: what counts nothing has no series, and that is not nothing. */
  const none = (track: Track): string => `0 * count by (namespace) (${GATE_METRICS.turnsInFlight}{${of(track)}})`;
  const both = (expression: (track: Track) => string) => ({
    canary: expression("canary"),
    stable: expression("stable"),
  });
  const { errorRatio, timeToFirstToken, costPerTurn, breakerOpen, unreadableSessions } = conditions;
  const made: ConditionExpressions[] = [];

  if (errorRatio !== undefined) {
    // Without a failed turn there is no series to divide: then it is 0, and not nothing.
    const sides = both((track) => {
      const failed = `sum by (namespace) (${increase(track, GATE_METRICS.turns, of(track, 'finish_reason="ERROR"'))})`;
      return `(${failed} or 0 * ${turns(track)}) / ${turns(track)}`;
    });
    const limit = `clamp_min(${errorRatio.factor} * (${sides.stable}), ${errorRatio.floor})`;
    made.push({ name: "errorRatio", title: "share of failed turns", unit: "ratio", ...sides, limit, needsTurns: true });
  }
  if (timeToFirstToken !== undefined) {
    const { quantile, factor, floorSeconds } = timeToFirstToken;
    const sides = both(
      (track) =>
        `histogram_quantile(${quantile}, sum by (namespace, le) (${increase(track, GATE_METRICS.timeToFirstToken, of(track))}))`,
    );
    made.push({
      name: "timeToFirstToken",
      title: `time to first token, quantile ${quantile}`,
      unit: "s",
      ...sides,
      limit: larger(`${factor} * (${sides.stable})`, `(${sides.stable}) + ${floorSeconds}`),
      needsTurns: true,
    });
  }
  if (costPerTurn !== undefined) {
    const { factor, floorMicroUsd } = costPerTurn;
    const sides = both((track) => {
      // By version alone: the sidecar that counts a call's cost may be the other track's.
      const perVersion = (metric: string): string => `sum by (namespace) (${increase(track, metric, selector)})`;
      return `1e6 * ${perVersion(GATE_METRICS.cost)} / ${perVersion(GATE_METRICS.turns)}`;
    });
    made.push({
      name: "costPerTurn",
      title: "cost per turn",
      unit: "microUSD",
      ...sides,
      limit: larger(`${factor} * (${sides.stable})`, `(${sides.stable}) + ${floorMicroUsd}`),
      needsTurns: true,
    });
  }
  if (breakerOpen !== undefined) {
    // A breaker that has never changed is no series; a track that is scraped has an open share of 0 then.
    const sides = both(
      (track) =>
        `(max by (namespace) (avg_over_time((max by (namespace, version) (${GATE_METRICS.breakerState}{${of(track)}}) == bool 2)[${window}:5s]) and on (namespace, version) ${running(track)}) or ${none(track)})`,
    );
    made.push({
      name: "breakerOpen",
      title: "share of time with an open breaker",
      unit: "ratio",
      ...sides,
      limit: `${sides.stable} + ${breakerOpen.maxShare}`,
      needsTurns: true,
    });
  }
  if (unreadableSessions !== undefined) {
    const sides = both(
      (track) => `(sum by (namespace) (${increase(track, GATE_METRICS.unreadable, of(track))}) or ${none(track)})`,
    );
    made.push({
      name: "unreadableSessions",
      title: "sessions that could not be read",
      unit: "sessions",
      ...sides,
      limit: `${none("canary")} + ${unreadableSessions.max}`,
      // One is enough: more turns would only harm more people.
      needsTurns: false,
    });
  }
  return { turns: both(turns), conditions: made };
}

/** The larger of two vectors. */
function larger(one: string, other: string): string {
  return `((${one}) > (${other}) or (${other}))`;
}
