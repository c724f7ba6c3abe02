import { collectDefaultMetrics, Registry } from "prom-client";
import { COST_METRICS } from "../../sidecar/cost-metrics.ts";
import { createSidecarMetrics } from "../../sidecar/request-metrics.ts";
import { METRICS } from "../../src/metrics.ts";

/** A metric that queries may name. */
export interface KnownMetric {
  readonly type: "counter" | "gauge" | "histogram";
  readonly labels: readonly string[];
}

/** What the service around AutoGen exported: docs/from-autogen.md. Its labels differ from place to place, so that no query names one. */
export const FORMER_METRICS: Readonly<Record<string, KnownMetric>> = {
  autogen_requests_total: { type: "counter", labels: [] },
  autogen_request_duration_seconds: { type: "histogram", labels: [] },
  autogen_tokens_total: { type: "counter", labels: [] },
  autogen_active_sessions: { type: "gauge", labels: [] },
};

/** What Prometheus and its service discovery put on every series that they scrape. */
const TARGET_LABELS = ["namespace", "job", "instance", "pod"] as const;

/** What the registries put on every series. */
const DEFAULT_LABELS = ["version", "track"] as const;

/** The metrics of the sidecar's RPCs, as `sidecar/request-metrics.ts` has them; a test compares it with the registry. */
export const SIDECAR_REQUEST_METRICS: Readonly<Record<string, KnownMetric>> = {
  parley_usage_up: { type: "gauge", labels: [] },
  parley_usage_requests_total: { type: "counter", labels: ["rpc", "code"] },
  parley_usage_request_duration_seconds: { type: "histogram", labels: ["rpc"] },
};

/** Names and types of what the sidecar's registry renders beside costs. */
export async function sidecarRequestRegistry(): Promise<Record<string, string>> {
  const text = await createSidecarMetrics({ version: "0", track: "stable" }).render();
  return Object.fromEntries(
    [...text.matchAll(/^# TYPE (parley_\w+) (\w+)$/gm)].map(([, name = "", type = ""]) => [name, type]),
  );
}

/** Node's and the process' own metrics, of both processes. */
function processMetrics(): readonly { readonly name: string; readonly labels: readonly string[] }[] {
  const register = new Registry();
  collectDefaultMetrics({ register });
  return register.getMetricsAsArray().map(({ name }) => ({ name, labels: [] }));
}

/** Every series that queries may name, with its labels. */
export function knownSeries(): ReadonlyMap<string, ReadonlySet<string>> {
  const series = new Map<string, ReadonlySet<string>>();
  const tables: (KnownMetric & { readonly name: string })[] = [
    ...Object.values(METRICS),
    ...Object.values(COST_METRICS),
    ...Object.entries({ ...SIDECAR_REQUEST_METRICS, ...FORMER_METRICS }).map(([name, metric]) => ({ name, ...metric })),
  ];
  for (const { name, type, labels } of tables) {
    const all = [...labels, ...DEFAULT_LABELS, ...TARGET_LABELS];
    if (type !== "histogram") series.set(name, new Set(all));
    else {
      for (const suffix of ["_count", "_sum"]) series.set(name + suffix, new Set(all));
      series.set(`${name}_bucket`, new Set([...all, "le"]));
    }
  }
  for (const { name, labels } of processMetrics())
    series.set(name, new Set([...labels, ...DEFAULT_LABELS, ...TARGET_LABELS]));
  // Prometheus' own, of each target and of each alert; and Alertmanager's.
  series.set("up", new Set(TARGET_LABELS));
  series.set("ALERTS", new Set(["alertname", "alertstate", "severity", ...TARGET_LABELS]));
  series.set("alertmanager_notifications_failed_total", new Set(["integration", ...TARGET_LABELS]));
  return series;
}
