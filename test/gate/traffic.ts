/** What one track's pods have counted. */
export interface Traffic {
  readonly turns: number;
  /** Absent: no series of failed turns at all. */
  readonly errors?: number;
  /** Null: no turn has said a word. */
  readonly firstTokenSeconds?: number | null;
  /** Absent: no series of cost at all. */
  readonly microUsdPerTurn?: number;
  /** Absent: no breaker has ever changed. */
  readonly breaker?: 0 | 1 | 2;
  readonly unreadable?: number;
  /** What pods of another version counted on this track, that are gone. */
  readonly before?: Omit<Traffic, "before">;
}

const BUCKETS = [0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5];

/** A track's metrics in Prometheus' text format, as its service and sidecar write them, under a label `scenario`. */
export function metricsText(scenario: string, track: "canary" | "stable", { before, ...traffic }: Traffic): string {
  const version = track === "canary" ? "0.6.0" : "0.5.0";
  const runs = `parley_turns_in_flight{scenario="${scenario}",track="${track}",version="${version}"} 3\n`;
  const gone = before === undefined ? "" : countersText(scenario, track, "0.4.9", before);
  return runs + countersText(scenario, track, version, traffic) + gone;
}

function countersText(scenario: string, track: string, version: string, traffic: Traffic): string {
  const own = `scenario="${scenario}",track="${track}",version="${version}"`;
  const { turns, errors, firstTokenSeconds = 0.25, microUsdPerTurn, breaker, unreadable } = traffic;
  const begun = firstTokenSeconds === null ? 0 : turns;
  const lines = [
    `parley_turns_total{${own},finish_reason="STOP"} ${turns - (errors ?? 0)}`,
    ...(errors === undefined ? [] : [`parley_turns_total{${own},finish_reason="ERROR"} ${errors}`]),
    ...BUCKETS.map(
      (le) =>
        `parley_time_to_first_token_seconds_bucket{${own},le="${le}"} ${(firstTokenSeconds ?? 0) <= le ? begun : 0}`,
    ),
    `parley_time_to_first_token_seconds_bucket{${own},le="+Inf"} ${begun}`,
    ...(breaker === undefined ? [] : [`parley_breaker_state{${own},endpoint="e",model="m"} ${breaker}`]),
    ...(unreadable === undefined ? [] : [`parley_unreadable_sessions_total{${own}} ${unreadable}`]),
  ];
  if (microUsdPerTurn !== undefined) {
    // Any sidecar may apply any ledger row: stable's counts the canary's cost, under the version of the row.
    const sidecar = `scenario="${scenario}",track="stable",version="${version}"`;
    const usd = (microUsdPerTurn * turns) / 1e6;
    lines.push(
      `parley_cost_usd_total{${sidecar},tenant="a",type="prompt"} ${usd / 4}`,
      `parley_cost_usd_total{${sidecar},tenant="b",type="completion"} ${(usd * 3) / 4}`,
    );
  }
  return `${lines.join("\n")}\n`;
}
