import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { RequestMetrics } from "../src/rpc/metrics-observer.ts";

/** The sidecar's metrics. */
export interface SidecarMetrics extends RequestMetrics {
  /** With the default labels `version` and `track`. */
  readonly registry: Registry;
  /** With the default label `track`: for metrics whose `version` is that of the release which they tell of. */
  readonly releases: Registry;
  render(): Promise<string>;
  readonly contentType: string;
}

/** From a read of one hash to a sum over a month. */
const BUCKETS_SECONDS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30];

/**
 * The metrics of RPCs, beside which others can be registered: `parley_usage_requests_total{rpc,code}`, `parley_usage_request_duration_seconds{rpc}`, and
 * what the process costs; each has the labels `version` and `track` as well.
 */
export function createSidecarMetrics({ version, track }: { version: string; track: string }): SidecarMetrics {
  const registry = new Registry();
  registry.setDefaultLabels({ version, track });
  const releases = new Registry();
  releases.setDefaultLabels({ track });
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  new Gauge({ name: "parley_usage_up", help: "1 while the sidecar runs", registers }).set(1);
  const requests = new Counter({
    name: "parley_usage_requests_total",
    help: "UsageService RPCs that have ended, by method and status code",
    labelNames: ["rpc", "code"],
    registers,
  });
  const duration = new Histogram({
    name: "parley_usage_request_duration_seconds",
    help: "Time from a UsageService RPC's arrival to its end",
    labelNames: ["rpc"],
    buckets: BUCKETS_SECONDS,
    registers,
  });
  return {
    requestEnded({ rpc, code, seconds }) {
      requests.labels(rpc, code).inc();
      duration.labels(rpc).observe(seconds);
    },
    registry,
    releases,
    render: async () => `${await registry.metrics()}\n${await releases.metrics()}`,
    contentType: registry.contentType,
  };
}
