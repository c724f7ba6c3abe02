import { rise } from "../promql.ts";
import type { Dashboard, Panel, PanelQuery } from "./grafana-dashboard.ts";

/** For whoever pays: what is spent, by whom, for what, and how long the budgets last. */
export function businessDashboard(): Dashboard {
  const chosen = 'namespace=~"$namespace",tenant=~"$tenant"';
  const perHour = (by: string, metric = "parley_cost_usd_total") =>
    named(by, `sum by (${by}) (rate(${metric}{${chosen}}[$__rate_interval])) * 3600`);
  const inRange = (by: string, metric = "parley_cost_usd_total") =>
    `sort_desc(${named(by, `sum by (${by}) (${rise(`${metric}{${chosen}}`, "$__range")}) > 0`)})`;
  const inLastHour = (by: string, metric: string) => `sum by (${by}) (${rise(`${metric}{${chosen}}`, "1h")})`;
  // Every sidecar tells the same of a budget and of a ledger.
  // Nothing is spent of one that stands for each who has none of its own.
  const theirs = `${chosen},scope_id!="*"`;
  const budget = (metric: string, matchers = "") =>
    `max by (namespace, tenant, scope, scope_id, period) (${metric}{${theirs}${matchers && `,${matchers}`}})`;
  const month = (metric: string) => `max by (namespace, tenant) (${metric}{${chosen}})`;
  const whose = "{{tenant}} {{scope}} {{scope_id}} {{period}}";

  return {
    uid: "parley-business",
    title: "Parley: business",
    description:
      "Spend by team, user, use case and model, budgets and forecasts. By Prometheus: for trends. Invoices come from the ledger (ExportUsage).",
    variables: [
      { label: "namespace", of: "parley_usage_up" },
      { label: "tenant", of: "parley_ledger_cost_usd" },
    ],
    rows: [
      {
        title: "This month",
        panels: [
          stat("Spent this month", `sum(${month("parley_ledger_cost_usd")})`, "currencyUSD"),
          {
            ...stat(
              "Spent at the month's end, at the pace of the last day",
              `sum(max by (namespace, tenant) (predict_linear(parley_ledger_cost_usd{${chosen}}[1d], ${MONTH_LEFT})))`,
              "currencyUSD",
            ),
            description: "A line through the last day, prolonged. On the first of a month it means nothing.",
          },
          stat("Spent in the time shown", `sum(increase(parley_cost_usd_total{${chosen}}[$__range]))`, "currencyUSD"),
          {
            ...stat("Cost of a completed turn", `${costPerTurn("namespace", chosen)}`, "currencyUSD"),
            description:
              "All money, that of failed turns too, over the turns that came to their own end. Of all tenants: turns are counted without.",
          },
        ],
      },
      {
        title: "Spend over time",
        panels: [
          stackedSeries("By team, dollars per hour", [{ expr: perHour("team"), legend: "{{team}}" }]),
          stackedSeries("By use case, dollars per hour", [{ expr: perHour("use_case"), legend: "{{use_case}}" }]),
          stackedSeries("By model, dollars per hour", [{ expr: perHour("model"), legend: "{{model}}" }]),
          stackedSeries("By user, dollars per hour", [
            {
              expr: `topk(20, ${perHour("tenant, user", "parley_cost_user_usd_total")} > 0)`,
              legend: "{{tenant}} {{user}}",
            },
          ]),
          stackedSeries("By tenant, dollars per hour", [{ expr: perHour("tenant"), legend: "{{tenant}}" }]),
          stackedSeries("By version, dollars per hour", [{ expr: perHour("version"), legend: "{{version}}" }]),
        ],
      },
      {
        title: "Spend in the time shown",
        panels: [
          table("By team", [{ expr: inRange("tenant, team"), legend: "" }]),
          table("By use case", [{ expr: inRange("tenant, use_case"), legend: "" }]),
          table("By model", [{ expr: inRange("model"), legend: "" }]),
          {
            ...table("By user", [
              { expr: `topk(50, ${inRange("tenant, user", "parley_cost_user_usd_total")})`, legend: "" },
            ]),
            description: "The first users that a sidecar saw; all others are __other__. Every user is in the ledger.",
          },
        ],
      },
      {
        title: "Budgets",
        panels: [
          bars("Used, spent and held", "percentunit", [
            {
              expr: `sort_desc((${budget("parley_budget_spent_usd")} + ${budget("parley_budget_held_usd")}) / (${budget("parley_budget_limit_usd")} > 0))`,
              legend: whose,
            },
          ]),
          {
            ...table("Money left", [
              {
                expr: `sort(${budget("parley_budget_limit_usd")} - ${budget("parley_budget_spent_usd")} - ${budget("parley_budget_held_usd")})`,
                legend: "",
              },
            ]),
            valueHead: "Left",
            description: "Less than nothing: the budget only counts, or calls cost more than was held for them.",
          },
          {
            ...bars("Forecast of months, of their limit", "percentunit", [
              {
                expr: `sort_desc(max by (namespace, tenant, scope, scope_id, period) (predict_linear(parley_budget_spent_usd{${theirs},period="month"}[6h], ${MONTH_LEFT})) / (${budget("parley_budget_limit_usd", 'period="month"')} > 0))`,
                legend: whose,
              },
            ]),
            description: "At the pace of the last six hours. Above 100 % it will not last.",
          },
          bars("Tokens used, of their limit", "percentunit", [
            {
              expr: `sort_desc((${budget("parley_budget_spent_tokens")} + ${budget("parley_budget_held_tokens")}) / (${budget("parley_budget_limit_tokens")} > 0))`,
              legend: whose,
            },
          ]),
        ],
      },
      {
        title: "Tokens and turns",
        panels: [
          {
            ...series("Tokens per second, by type", "short", [
              {
                expr: `sum by (type) (rate(parley_cost_tokens_total{${chosen}}[$__rate_interval]))`,
                legend: "{{type}}",
              },
            ]),
            stacked: true,
          },
          series("Cost of a completed turn", "currencyUSD", [
            { expr: costPerTurn("namespace", chosen), legend: "{{namespace}}" },
          ]),
          series("Cost of a completed turn, per version", "currencyUSD", [
            { expr: costPerTurn("version", chosen), legend: "{{version}}" },
          ]),
        ],
      },
      {
        title: "Worth a look",
        panels: [
          series("Tokens without a price, in an hour", "short", [
            {
              expr: inLastHour("tenant, model", "parley_unpriced_tokens_total"),
              legend: "{{tenant}} {{model}}",
            },
          ]),
          series("Anomalies, in an hour", "short", [
            {
              expr: inLastHour("tenant, kind", "parley_cost_anomalies_total"),
              legend: "{{tenant}} {{kind}}",
            },
          ]),
          series("Ledger less rollups", "currencyUSD", [
            { expr: `${month("parley_ledger_cost_usd")} - ${month("parley_rollup_cost_usd")}`, legend: "{{tenant}}" },
          ]),
        ],
      },
    ],
  };
}

/** Seconds to the end of the month, in UTC. */
const MONTH_LEFT = "scalar(days_in_month() - day_of_month() + 1) * 86400 - time() % 86400";

/** Says "none" where the last of some labels has no value: a legend or a cell without a word looks like a defect. */
function named(by: string, expr: string): string {
  const label = by.split(", ").at(-1) ?? by;
  return `label_replace(${expr}, "${label}", "none", "${label}", "")`;
}

/** Turns that came to their own end. Money has no replica, turns have no tenant: the two meet by namespace or version. */
function costPerTurn(by: string, chosen: string): string {
  const turns = `sum by (${by}) (rate(parley_turns_total{namespace=~"$namespace",finish_reason=~"STOP|TERMINATED|MAX_ROUNDS"}[$__rate_interval]))`;
  return `sum by (${by}) (rate(parley_cost_usd_total{${chosen}}[$__rate_interval])) / (${turns} > 0)`;
}

function series(title: string, unit: Panel["unit"], queries: readonly PanelQuery[]): Panel {
  return { title, kind: "timeseries", unit, queries };
}

function stackedSeries(title: string, queries: readonly PanelQuery[]): Panel {
  return { ...series(title, "currencyUSD", queries), stacked: true };
}

function table(title: string, queries: readonly PanelQuery[]): Panel {
  return { title, kind: "table", unit: "currencyUSD", width: 6, valueHead: "Spend", queries };
}

function bars(title: string, unit: Panel["unit"], queries: readonly PanelQuery[]): Panel {
  const [thresholds, bounds] = [
    { warning: 0.8, critical: 1 },
    { min: 0, max: 1 },
  ];
  return { title, kind: "bargauge", unit, width: 6, queries, thresholds, bounds };
}

function stat(title: string, expr: string, unit: Panel["unit"]): Panel {
  return { title, kind: "stat", unit, width: 6, queries: [{ expr, legend: "" }] };
}
