import type { AlertRule } from "./alert-rules.ts";

/** One budget, whichever sidecar tells of it. */
const BUDGET = "max by (namespace, tenant, scope, scope_id, period, dry_run)";

/** A budget that is tried, or that is to warn and not to bind, warns as others do; its alerts say that nobody is refused. */
const DRY_RUN = '{{ if eq $labels.dry_run "true" }} (dry run: nobody is refused){{ end }}';

/**
 * Periods of budgets in UTC: over which window their pace is measured, and the seconds that are left of them now. Long
 * enough a window to be no burst, short enough to leave time to act.
 */
const PERIODS = [
  { period: "hour", seconds: 3_600, window: "10m", windowSeconds: 600, left: "3600 - time() % 3600" },
  { period: "day", seconds: 86_400, window: "1h", windowSeconds: 3_600, left: "86400 - time() % 86400" },
  {
    period: "month",
    seconds: 30 * 86_400,
    window: "6h",
    windowSeconds: 21_600,
    left: "scalar(days_in_month() - day_of_month() + 1) * 86400 - time() % 86400",
  },
] as const;

/** A pace at which a budget would last for less than a quarter of its period. */
const FAST = 4;

/** A forecast is believed from this share of the limit on: a first call of the day forecasts anything. */
const FORECAST_FROM = 0.25;

/** Money and tokens alike: each budget's pace, its forecast and its end. */
export function budgetAlerts(): AlertRule[] {
  return [
    { unit: "usd", spent: "parley_budget_spent_usd", held: "parley_budget_held_usd", limit: "parley_budget_limit_usd" },
    {
      unit: "tokens",
      spent: "parley_budget_spent_tokens",
      held: "parley_budget_held_tokens",
      limit: "parley_budget_limit_tokens",
    },
  ].flatMap(alertsOf);
}

function alertsOf({
  unit,
  spent,
  held,
  limit,
}: {
  unit: string;
  spent: string;
  held: string;
  limit: string;
}): AlertRule[] {
  const whose = "{{ $labels.scope }} {{ $labels.scope_id }} of {{ $labels.tenant }}";
  const of = (metric: string, period: string) => `${BUDGET} (${metric}{period="${period}"})`;
  return [
    {
      alert: "ParleyBudgetBurn",
      severity: "warning",
      for: "5m",
      labels: { kind: "budget-burn", unit },
      // A period's begin makes the delta negative.
      expr: PERIODS.map(({ period, seconds, window, windowSeconds }) => {
        const share = Number(((FAST * windowSeconds) / seconds).toFixed(4));
        return `${BUDGET} (delta(${spent}{period="${period}"}[${window}])) / (${of(limit, period)} > 0) > ${share}`;
      }).join(" or "),
      summary: `${whose}: a ${unit} budget burns ${FAST} times as fast as its {{ $labels.period }} allows${DRY_RUN}`,
      description:
        "{{ $value | humanizePercentage }} of the limit went in a short time (10 minutes of an hour, an hour of a day, six hours of a month).",
    },
    {
      alert: "ParleyBudgetExhaustionForecast",
      severity: "warning",
      for: "5m",
      labels: { kind: "budget-forecast", unit },
      // The forecast looks to the period's end and no further: what comes then begins anew.
      expr: PERIODS.map(({ period, window, left }) => {
        const limitNow = of(limit, period);
        const forecast = `${BUDGET} (predict_linear(${spent}{period="${period}"}[${window}], ${left}))`;
        const within = `${of(spent, period)} < ${limitNow} and ${of(spent, period)} > ${FORECAST_FROM} * ${limitNow}`;
        return `(${forecast} > ${limitNow} and ${within})`;
      }).join(" or "),
      summary: `${whose}: the {{ $labels.period }}'s ${unit} budget will not last${DRY_RUN}`,
      description: `At its present pace {{ $value | humanize }} ${unit} will be spent by the period's end, more than the limit.`,
    },
    {
      alert: "ParleyBudgetExhausted",
      severity: "warning",
      for: "2m",
      labels: { kind: "budget-exhausted", unit },
      // What is held counts: it is what refuses the next call. A limit of 0 is meant.
      expr: `(${BUDGET} (${spent}) + (${BUDGET} (${held}) or 0 * ${BUDGET} (${spent}))) >= (${BUDGET} (${limit}) > 0)`,
      summary: `${whose}: the {{ $labels.period }}'s ${unit} budget is spent${DRY_RUN}`,
      description: `{{ $value | humanize }} ${unit} are spent or held; {{ if eq $labels.dry_run "true" }}a budget that binds would refuse calls{{ else }}calls are refused with BUDGET_EXHAUSTED{{ end }} until the period ends.`,
    },
  ];
}
