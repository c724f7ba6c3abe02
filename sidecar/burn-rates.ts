import type { AlertRule, RecordingRule } from "./alert-rules.ts";

/** A promise about events, and how they are counted. */
export interface Objective {
  /** Value of the label `slo`. */
  readonly slo: string;
  /** Name of its two alerts. */
  readonly alert: string;
  /** What an event is, for sentences: "RPCs", "turns". */
  readonly events: string;
  /** What is wrong with the bad ones, for sentences: "fail". */
  readonly bad: string;
  /** Share of events that must be good, of 1. */
  readonly target: number;
  /** PromQL of bad and of all events per second over a window such as `5m`, by namespace. */
  badRate(window: string): string;
  allRate(window: string): string;
}

/**
 * Multi-window, multi-burn-rate alerts as the Google SRE workbook has them ("Alerting on SLOs", table 5-8): a budget of 30
 * days that burns `factor` times as fast as it may, over a long window (it matters) and a short one (it still goes on).
 * A factor of 14.4 spends 2 percent of it in an hour, 6 spends 5 in six hours, 3 spends 10 in a day, 1 in three days.
 */
const BURN_RATES = [
  { severity: "critical", factor: 14.4, long: "1h", short: "5m" },
  { severity: "critical", factor: 6, long: "6h", short: "30m" },
  { severity: "warning", factor: 3, long: "1d", short: "2h" },
  { severity: "warning", factor: 1, long: "3d", short: "6h" },
] as const;

const SECONDS: Readonly<Record<string, number>> = { "1h": 3_600, "6h": 21_600, "1d": 86_400, "3d": 259_200 };

const WINDOWS = [...new Set(BURN_RATES.flatMap(({ long, short }) => [long, short]))];
const LONG_WINDOWS = [...new Set(BURN_RATES.map(({ long }) => long))];

/** Share of bad events over each window, and how many events there were in the long ones: read by alerts and dashboards. */
export function burnRateRecordings(objectives: readonly Objective[]): RecordingRule[] {
  return objectives.flatMap(({ slo, badRate, allRate }) => [
    ...WINDOWS.map((window) => ({
      record: `parley:slo_errors:ratio_rate${window}`,
      // Where nothing is bad there is no series to divide: without `or 0 *` a service without failures has no share at all.
      expr: `(${badRate(window)} or 0 * ${allRate(window)}) / ${allRate(window)}`,
      labels: { slo },
    })),
    ...LONG_WINDOWS.map((window) => ({
      record: `parley:slo_events:increase${window}`,
      expr: `${allRate(window)} * ${SECONDS[window]}`,
      labels: { slo },
    })),
  ]);
}

/** A page and a ticket for each objective. */
export function burnRateAlerts(objectives: readonly Objective[], { minEvents }: { minEvents: number }): AlertRule[] {
  return objectives.flatMap(({ slo, alert, events, bad, target }) =>
    (["critical", "warning"] as const).map((severity) => ({
      alert,
      severity,
      labels: { slo },
      // The short window is the wait.
      for: "2m",
      expr: BURN_RATES.filter((rate) => rate.severity === severity)
        .map(({ factor, long, short }) => {
          const most = `${factor} * ${allowed(target)}`;
          return [
            `parley:slo_errors:ratio_rate${long}{slo="${slo}"} > ${most}`,
            `and parley:slo_errors:ratio_rate${short}{slo="${slo}"} > ${most}`,
            `and parley:slo_events:increase${long}{slo="${slo}"} >= ${minEvents}`,
          ].join(" ");
        })
        .map((both) => `(${both})`)
        .join(" or "),
      summary:
        severity === "critical"
          ? `So many ${events} ${bad} that the month's budget is gone within days`
          : `More ${events} ${bad} than the month's budget allows`,
      description: `{{ $value | humanizePercentage }} of ${events} ${bad}; the target allows ${percent(1 - target)}.`,
    })),
  );
}

/** 1 minus the target, without what floating point adds. */
function allowed(target: number): number {
  return Number((1 - target).toFixed(9));
}

function percent(share: number): string {
  return `${Number((share * 100).toFixed(6))}%`;
}
