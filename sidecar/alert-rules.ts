import { stringify } from "yaml";
import type { AlertSettings } from "./alert-settings.ts";
import { budgetAlerts } from "./budget-alerts.ts";
import { burnRateAlerts, burnRateRecordings } from "./burn-rates.ts";
import { objectivesOf } from "./objectives.ts";
import { rise, risen } from "./promql.ts";

/** One alert. Its runbook is the page of its name in `docs/runbooks`. */
export interface AlertRule {
  readonly alert: string;
  /** PromQL: whatever it returns fires. */
  readonly expr: string;
  /** It must return it for this long; Prometheus' duration. */
  readonly for: string;
  /** `critical` wakes somebody, `warning` is a message for working hours, `none` is the watchdog's. */
  readonly severity: "critical" | "warning" | "none";
  /** An alert has `slo` or `kind`: what inhibition and the routes tell alerts apart by. Further labels tell rows of one name apart. */
  readonly labels: Readonly<Record<string, string>> & ({ readonly slo: string } | { readonly kind: string });
  /** One sentence for a phone's screen; Prometheus' templates. */
  readonly summary: string;
  /** What the number says. */
  readonly description: string;
}

/**
 * A user or a session that does not spend as it did. The rule of this name fires by the count; the sidecars post the alert itself, with
 * the session to look at. Routes and inhibitions must take both alike.
 */
export const COST_ANOMALY = {
  alert: "ParleyCostAnomaly",
  severity: "warning",
  labels: { kind: "anomaly" },
} as const satisfies Pick<AlertRule, "alert" | "severity" | "labels">;

/** Labels of every alert, whoever raises it. Prometheus adds the `namespace` of its targets. */
export function alertLabels({ severity, labels }: Pick<AlertRule, "severity" | "labels">): Record<string, string> {
  return { severity, service: "parley", ...labels };
}

/** Where an alert's runbook is. */
export function runbookOf({ alert }: Pick<AlertRule, "alert">, runbookUrl: string): string {
  return `${runbookUrl}/${alert}.md`;
}

/** A number that is computed once and read by alerts and dashboards. */
export interface RecordingRule {
  readonly record: string;
  readonly expr: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** How long a process that was seen is missed. After that it counts as taken away on purpose. */
const MISSED = "1d";

/** The alerts, most urgent kinds first. All sums are by namespace: two installations on one Prometheus stay apart. */
export function alertRules(settings: AlertSettings): readonly AlertRule[] {
  return [
    {
      alert: "ParleyServiceDown",
      severity: "critical",
      for: "2m",
      labels: { kind: "service" },
      // Not `up`: which job's, only the scrape configuration knows.
      expr: `max by (namespace) (max_over_time(parley_turns_in_flight[${MISSED}])) unless max by (namespace) (parley_turns_in_flight)`,
      summary: "No replica of Parley can be scraped",
      description: "There were replicas within the last day and there is none now.",
    },
    {
      alert: "ParleySessionStoreDown",
      severity: "critical",
      for: "1m",
      labels: { kind: "store" },
      // One replica that cannot reach it is that replica's trouble; /readyz takes it out.
      expr: "avg by (namespace) (parley_store_up) < 0.5",
      summary: "The session store answers less than half of the replicas",
      description:
        "{{ $value | humanizePercentage }} of the replicas have an answer from Redis; no turn can begin on the rest.",
    },
    {
      alert: "ParleyModelUnavailable",
      severity: "critical",
      for: "2m",
      labels: { kind: "model" },
      // An open breaker is half-open for moments, so that its worst of a minute counts.
      expr: "min by (namespace, model) (max by (namespace, endpoint, model) (max_over_time(parley_breaker_state[1m]))) == 2",
      summary: "Every endpoint of {{ $labels.model }} is cut off",
      description: "On some replica the breaker of each endpoint is open: its turns with this model fail.",
    },
    {
      alert: "ParleyBreakerOpen",
      severity: "warning",
      for: "5m",
      labels: { kind: "model" },
      expr: "max by (namespace, endpoint, model) (max_over_time(parley_breaker_state[1m])) == 2",
      summary: "{{ $labels.endpoint }} is cut off for {{ $labels.model }}",
      description:
        "On some replica its breaker has been open for five minutes; other endpoints answer, if there are any.",
    },
    ...burnRateAlerts(objectivesOf(settings), settings),
    {
      alert: "ParleySidecarDown",
      severity: "critical",
      for: "5m",
      labels: { kind: "sidecar" },
      // A target that was a sidecar's and does not answer; or no sidecar at all beside a service that runs.
      expr: [
        `max by (namespace, instance) (max_over_time(parley_usage_up[${MISSED}]) and on (namespace, instance) (up == 0))`,
        "(max by (namespace) (parley_store_up) unless max by (namespace) (parley_usage_up))",
      ].join(" or "),
      summary: "A cost sidecar is down{{ with $labels.instance }}: {{ . }}{{ end }}",
      description: "Nothing counts its part of the bill; usage, budgets and cost alerts may be blind.",
    },
    {
      alert: "ParleyLedgerLag",
      severity: "warning",
      for: "5m",
      labels: { kind: "ledger" },
      expr: `max by (namespace) (parley_ledger_lag_seconds) > ${settings.ledgerLagSeconds}`,
      summary: "The ledger is applied late",
      description: "The oldest row that no sidecar has applied is {{ $value | humanizeDuration }} old.",
    },
    ...driftAlerts(settings),
    ...budgetAlerts(),
    ...anomalyAlerts(settings),
    {
      alert: "ParleyUnpricedTokens",
      severity: "warning",
      for: "5m",
      labels: { kind: "prices" },
      expr: risen("parley_unpriced_tokens_total", { by: ["tenant", "model"], window: "1h" }),
      summary: "{{ $labels.model }} has no price",
      description: "Tenant {{ $labels.tenant }} used it within the hour, billed at the default price.",
    },
    {
      alert: "ParleyWatchdog",
      severity: "none",
      for: "0s",
      labels: { kind: "watchdog" },
      expr: "vector(1)",
      summary: "Always fires",
      description: "Whoever receives it raises the alarm when it stops: then alerts do not arrive.",
    },
  ];
}

/** What `alertRules` read. */
export function recordingRules(settings: AlertSettings): readonly RecordingRule[] {
  return burnRateRecordings(objectivesOf(settings));
}

/** All rules as one file. */
export function renderAlertRules(settings: AlertSettings): string {
  const { runbookUrl } = settings;
  return renderRules({ alerts: alertRules(settings), recordings: recordingRules(settings), runbookUrl });
}

/** A rule file as Prometheus reads it: `rule_files`, or the spec of a PrometheusRule. */
export function renderRules({
  alerts,
  recordings,
  runbookUrl,
  group = "parley",
}: {
  readonly alerts: readonly AlertRule[];
  readonly recordings: readonly RecordingRule[];
  readonly runbookUrl: string;
  /** Begins the groups' names. */
  readonly group?: string;
}): string {
  const rules = alerts.map((rule) => ({
    alert: rule.alert,
    expr: rule.expr,
    for: rule.for,
    labels: alertLabels(rule),
    annotations: {
      summary: rule.summary,
      description: rule.description,
      runbook_url: runbookOf(rule, runbookUrl),
    },
  }));
  const groups = [
    { name: `${group}-recordings`, rules: recordings },
    { name: `${group}-alerts`, rules },
  ].filter((one) => one.rules.length > 0);
  return stringify({ groups }, { lineWidth: 0, aliasDuplicateObjects: false });
}

/** Derived money against the ledger's own counters. A cent of difference on nothing is no drift: there is a floor of a dollar. */
function driftAlerts({ costDrift }: AlertSettings): AlertRule[] {
  const of = (metric: string) => `max by (namespace, tenant) (${metric})`;
  const row = {
    alert: "ParleyCostDrift",
    severity: "warning",
    for: "15m",
    summary: "{{ $labels.tenant }}: the ledger and what is derived from it differ",
  } as const;
  const ledger = of("parley_ledger_cost_usd");
  const rollup = of("parley_rollup_cost_usd");
  const spent = of("delta(parley_ledger_cost_usd[6h])");
  // A pod that began within the window counted from 0.
  const counted = `sum by (namespace, tenant) (${rise("parley_cost_usd_total", "6h")})`;
  return [
    {
      ...row,
      labels: { kind: "drift", between: "rollups" },
      expr: [
        `(abs(${rollup} - ${ledger}) / ${ledger} > ${costDrift} and (${ledger} > 1 or ${rollup} > 1))`,
        `(${ledger} > 1 unless ${rollup})`,
      ].join(" or "),
      description: "This month's rollups are off by {{ $value | humanizePercentage }}, or there are none.",
    },
    {
      ...row,
      labels: { kind: "drift", between: "counters" },
      // At a month's beginning the ledger's counter falls to 0: no comparison for six hours.
      expr: `abs(${counted} - ${spent}) / ${spent} > ${costDrift} and ${spent} > 1`,
      description: "The sidecars' counters of the last six hours are off by {{ $value | humanizePercentage }}.",
    },
  ];
}

/** A tenant far above its own last hours, or above what anybody may reach; and what the sidecars found in sessions. */
function anomalyAlerts(settings: AlertSettings): AlertRule[] {
  const perTenant = (metric: string, window: string, factor: number) =>
    `sum by (namespace, tenant) (rate(${metric}[${window}])) * ${factor}`;
  // The offset keeps the spike out of its own baseline; a new tenant has no baseline, and needs the ceiling.
  const anomaly = (now: string, { floor, ceiling }: { floor: number; ceiling: number }) =>
    `(${now} > ${floor} and ${now} > 4 * quantile_over_time(0.95, (${now})[6h:5m] offset 15m)) or ${now} > ${ceiling}`;
  const spike = { alert: "ParleyCostSpike", severity: "warning", for: "5m" } as const;
  return [
    {
      ...spike,
      labels: { kind: "cost", unit: "tokens" },
      expr: anomaly(perTenant("parley_cost_tokens_total", "5m", 60), {
        floor: settings.tokensPerMinuteFloor,
        ceiling: settings.tokensPerMinuteCeiling,
      }),
      summary: "{{ $labels.tenant }} uses far more tokens than it did",
      description: "{{ $value | humanize }} tokens a minute: four times its last six hours, or above the ceiling.",
    },
    {
      ...spike,
      labels: { kind: "cost", unit: "usd" },
      expr: anomaly(perTenant("parley_cost_usd_total", "5m", 3_600), {
        floor: settings.usdPerHourFloor,
        ceiling: settings.usdPerHourCeiling,
      }),
      summary: "{{ $labels.tenant }} spends far more than it did",
      description: "{{ $value | humanize }} dollars an hour: four times its last six hours, or above the ceiling.",
    },
    {
      ...COST_ANOMALY,
      for: "0s",
      // The metric's own `kind` gives way to the alert's.
      expr: `label_replace(${risen("parley_cost_anomalies_total", { by: ["tenant", "kind"], window: "15m" })}, "anomaly", "$1", "kind", "(.*)")`,
      summary: "{{ $labels.tenant }}: a session shows {{ $labels.anomaly }}",
      description: "A runaway agent or an injected prompt looks like this; the sidecar's log names the session.",
    },
  ];
}
