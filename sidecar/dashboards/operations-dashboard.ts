import type { AlertSettings } from "../alert-settings.ts";
import { objectivesOf } from "../objectives.ts";
import type { Dashboard, Panel, PanelQuery } from "./grafana-dashboard.ts";

/** For whoever is on call: is it up, is it right, is it fast, and is a release worse than the one before. */
export function operationsDashboard(settings: AlertSettings): Dashboard {
  const chosen = 'namespace=~"$namespace",version=~"$version",track=~"$track"';
  const place = 'namespace=~"$namespace"';
  const rate = (metric: string, by: string, matchers = "") =>
    `sum by (${by}) (rate(${metric}{${chosen}${matchers && `,${matchers}`}}[$__rate_interval]))`;
  const quantiles = (metric: string, matchers = ""): PanelQuery[] =>
    [0.5, 0.95, 0.99].map((quantile) => ({
      expr: `histogram_quantile(${quantile}, ${rate(`${metric}_bucket`, "le", matchers)})`,
      legend: `p${quantile * 100}`,
    }));
  const quantileBy = (metric: string, by: string): PanelQuery => ({
    expr: `histogram_quantile(0.95, ${rate(`${metric}_bucket`, `le, ${by}`)})`,
    legend: `{{${by}}}`,
  });
  const ratio = (bad: string, all: string) => `(${bad} or 0 * ${all}) / ${all}`;
  const failed = 'code=~"internal|unavailable|unknown|data_loss"';
  const ended = 'finish_reason!~"CANCELLED|INTERRUPTED|ROLLED_BACK"';

  const burn = (window: string): Panel => ({
    title: `Burn rate over ${window}`,
    description: "1: the month's budget is gone in a month. A page at 14.4 over an hour, a ticket at 3 over a day.",
    kind: "timeseries",
    unit: "short",
    width: 12,
    queries: objectivesOf(settings).map(({ slo, target }) => ({
      expr: `max by (namespace) (parley:slo_errors:ratio_rate${window}{slo="${slo}",${place}}) / ${Number((1 - target).toFixed(9))}`,
      legend: `${slo} {{namespace}}`,
    })),
  });

  return {
    uid: "parley-operations",
    title: "Parley: operations",
    description: "Rate, errors, latency, tokens, breakers and turns, per version.",
    variables: [
      { label: "namespace", of: "parley_store_up" },
      { label: "version", of: "parley_store_up" },
      { label: "track", of: "parley_store_up" },
    ],
    rows: [
      {
        title: "Now",
        panels: [
          stat("Replicas", `count(parley_store_up{${chosen}})`, "none"),
          stat("Sidecars", `count(parley_usage_up{${place}})`, "none"),
          {
            ...stat("Replicas with a session store", `avg(parley_store_up{${chosen}})`, "percentunit"),
          },
          stat("Active sessions", `max(parley_active_sessions{${chosen}})`, "short"),
          stat("Turns in flight", `sum(parley_turns_in_flight{${chosen}})`, "short"),
          {
            ...stat("Worst breaker", `max(parley_breaker_state{${chosen}})`, "none"),
            words: BREAKER_WORDS,
            thresholds: { warning: 1, critical: 2 },
          },
        ],
      },
      { title: "Targets", panels: [burn("1h"), burn("1d")] },
      {
        title: "Rate and errors",
        panels: [
          series("RPCs", "reqps", [{ expr: rate("parley_requests_total", "rpc"), legend: "{{rpc}}" }]),
          series("RPCs that did not end with ok", "reqps", [
            { expr: rate("parley_requests_total", "code", 'code!="ok"'), legend: "{{code}}" },
          ]),
          series("Turns that failed per second, by reason", "short", [
            { expr: rate("parley_agent_errors_total", "error_type"), legend: "{{error_type}}" },
          ]),
        ],
      },
      {
        title: "Latency",
        panels: [
          series("Time to the first token", "s", quantiles("parley_time_to_first_token_seconds")),
          series(
            "RPCs other than turns",
            "s",
            quantiles("parley_request_duration_seconds", 'rpc!~"Chat|StreamChat|ResumeTurn"'),
          ),
          series("Model calls, p95", "s", [quantileBy("parley_model_call_duration_seconds", "model")]),
        ],
      },
      {
        title: "Turns and models",
        panels: [
          series("Turns in flight and queued", "short", [
            { expr: `sum(parley_turns_in_flight{${chosen}})`, legend: "in flight" },
            { expr: `sum(parley_turns_queued{${chosen}})`, legend: "queued" },
          ]),
          {
            ...series("Turns that ended per second", "short", [
              { expr: rate("parley_turns_total", "finish_reason"), legend: "{{finish_reason}}" },
            ]),
            stacked: true,
          },
          series("Turns taken over from lost replicas per second", "short", [
            { expr: rate("parley_turns_taken_over_total", "namespace"), legend: "{{namespace}}" },
          ]),
          {
            ...series("Tokens per second", "short", [
              { expr: rate("parley_tokens_total", "model, type"), legend: "{{model}} {{type}}" },
            ]),
            stacked: true,
          },
          {
            ...series("Breakers", "none", [
              { expr: `max by (endpoint, model) (parley_breaker_state{${chosen}})`, legend: "{{endpoint}} {{model}}" },
            ]),
            words: BREAKER_WORDS,
          },
          series("Calls per second that cost more than was held", "short", [
            { expr: rate("parley_calls_over_hold_total", "model"), legend: "{{model}}" },
          ]),
        ],
      },
      {
        title: "Tools and checks",
        panels: [
          {
            ...series("Tool calls per second", "short", [
              {
                expr: rate("parley_tool_calls_total", "server, tool, outcome"),
                legend: "{{server}}.{{tool}} {{outcome}}",
              },
            ]),
            stacked: true,
          },
          series("Tool calls, p95", "s", [quantileBy("parley_tool_call_duration_seconds", "server")]),
          {
            ...series("Breakers of tool servers", "none", [
              { expr: `max by (server) (parley_tool_breaker_state{${chosen}})`, legend: "{{server}}" },
            ]),
            words: BREAKER_WORDS,
          },
          series("Turns per second that a check has ended", "short", [
            {
              expr: rate("parley_guardrails_tripped_total", "agent_team, guardrail, stage"),
              legend: "{{agent_team}} {{guardrail}} {{stage}}",
            },
          ]),
          series("Readings of parley.yaml per second", "short", [
            { expr: rate("parley_config_reloads_total", "result"), legend: "{{result}}" },
          ]),
        ],
      },
      {
        title: "Per version",
        panels: [
          series("RPCs", "reqps", [
            { expr: rate("parley_requests_total", "version, track"), legend: "{{version}} {{track}}" },
          ]),
          series("Share of RPCs that failed by our fault", "percentunit", [
            {
              expr: ratio(
                rate("parley_requests_total", "version, track", failed),
                rate("parley_requests_total", "version, track"),
              ),
              legend: "{{version}} {{track}}",
            },
          ]),
          series("Share of turns that ended in an error", "percentunit", [
            {
              expr: ratio(
                rate("parley_turns_total", "version, track", 'finish_reason="ERROR"'),
                rate("parley_turns_total", "version, track", ended),
              ),
              legend: "{{version}} {{track}}",
            },
          ]),
          series("Time to the first token, p95", "s", [
            {
              expr: `histogram_quantile(0.95, ${rate("parley_time_to_first_token_seconds_bucket", "le, version, track")})`,
              legend: "{{version}} {{track}}",
            },
          ]),
          series("Turns in flight", "short", [
            { expr: `sum by (version, track) (parley_turns_in_flight{${chosen}})`, legend: "{{version}} {{track}}" },
          ]),
          series("Refused, as another release's format", "reqps", [
            { expr: rate("parley_unreadable_sessions_total", "version, track"), legend: "{{version}} {{track}}" },
          ]),
        ],
      },
      {
        title: "Capacity and history",
        panels: [
          beforeAndSince("Requests per second, before and since", "reqps", {
            before: `sum(rate(autogen_requests_total{${place}}[$__rate_interval]))`,
            since: `sum(rate(parley_requests_total{${chosen}}[$__rate_interval]))`,
          }),
          beforeAndSince("Time of a whole answer, p95, before and since", "s", {
            before: `histogram_quantile(0.95, sum by (le) (rate(autogen_request_duration_seconds_bucket{${place}}[$__rate_interval])))`,
            since: `histogram_quantile(0.95, ${rate("parley_request_duration_seconds_bucket", "le", 'rpc=~"Chat|StreamChat"')})`,
          }),
          beforeAndSince("Tokens per second, before and since", "short", {
            before: `sum(rate(autogen_tokens_total{${place}}[$__rate_interval]))`,
            since: `sum(rate(parley_tokens_total{${chosen}}[$__rate_interval]))`,
          }),
          beforeAndSince("Sessions alive, before and since", "short", {
            before: `max(autogen_active_sessions{${place}})`,
            since: `max(parley_active_sessions{${chosen}})`,
          }),
          series("Turns at a time: of all, and of the busiest replica", "short", [
            { expr: `sum(max_over_time(parley_turns_in_flight{${chosen}}[$__rate_interval]))`, legend: "all" },
            { expr: `max(max_over_time(parley_turns_in_flight{${chosen}}[$__rate_interval]))`, legend: "busiest" },
          ]),
          {
            ...series("Turns per second for each core that they keep busy", "short", [
              {
                expr: `sum by (version) (rate(parley_turns_total{${chosen}}[$__rate_interval])) / sum by (version) (rate(process_cpu_seconds_total{${chosen}}[$__rate_interval]))`,
                legend: "{{version}}",
              },
            ]),
            description: "What a core does at this load; the least of it, for an idle process keeps its core busy too.",
          },
        ],
      },
      {
        title: "Ledger and sidecar",
        panels: [
          series("Age of the oldest row that is not applied", "s", [
            { expr: `max by (namespace) (parley_ledger_lag_seconds{${place}})`, legend: "{{namespace}}" },
          ]),
          series("Rows that are not applied", "short", [
            { expr: `max by (namespace) (parley_ledger_pending{${place}})`, legend: "{{namespace}}" },
          ]),
          series("Rows applied per second", "short", [
            {
              expr: `sum by (instance) (rate(parley_ledger_rows_applied_total{${place}}[$__rate_interval]))`,
              legend: "{{instance}}",
            },
          ]),
          series("Usage RPCs", "reqps", [
            {
              expr: `sum by (rpc, code) (rate(parley_usage_requests_total{${place}}[$__rate_interval]))`,
              legend: "{{rpc}} {{code}}",
            },
          ]),
          series("Usage RPCs, p95", "s", [
            {
              expr: `histogram_quantile(0.95, sum by (le, rpc) (rate(parley_usage_request_duration_seconds_bucket{${place}}[$__rate_interval])))`,
              legend: "{{rpc}}",
            },
          ]),
        ],
      },
      {
        title: "Processes",
        panels: [
          series("CPU, in cores", "short", [
            {
              expr: `sum by (instance) (rate(process_cpu_seconds_total{${chosen}}[$__rate_interval]))`,
              legend: "{{instance}}",
            },
          ]),
          series("Memory", "bytes", [
            { expr: `max by (instance) (process_resident_memory_bytes{${chosen}})`, legend: "{{instance}}" },
          ]),
          series("Event loop lag, p99", "s", [
            { expr: `max by (instance) (nodejs_eventloop_lag_p99_seconds{${chosen}})`, legend: "{{instance}}" },
          ]),
        ],
      },
    ],
  };
}

const BREAKER_WORDS = { 0: "closed", 1: "half-open", 2: "open" };

function series(title: string, unit: Panel["unit"], queries: readonly PanelQuery[]): Panel {
  return { title, kind: "timeseries", unit, queries };
}

/** Goes on with what the service around AutoGen was drawn by, where Prometheus has that: docs/from-autogen.md. */
function beforeAndSince(
  title: string,
  unit: Panel["unit"],
  { before, since }: { before: string; since: string },
): Panel {
  return series(title, unit, [
    { expr: since, legend: "Parley" },
    { expr: before, legend: "AutoGen service" },
  ]);
}

function stat(title: string, expr: string, unit: Panel["unit"]): Panel {
  return { title, kind: "stat", unit, width: 4, queries: [{ expr, legend: "" }] };
}
