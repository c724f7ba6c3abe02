import { Registry } from "prom-client";
import { describe, expect, test } from "vitest";
import { alertRules, recordingRules } from "../../sidecar/alert-rules.ts";
import { FIRST_TOKEN_BUCKETS, loadAlertSettings, REQUEST_LATENCY_BUCKETS } from "../../sidecar/alert-settings.ts";
import { createMetrics, METRICS } from "../../src/metrics.ts";
import { SIDECAR_REQUEST_METRICS, sidecarRequestRegistry } from "./known-metrics.ts";
import { promqlNames } from "./promql-names.ts";
import { unknownNames } from "./query-check.ts";

const settings = loadAlertSettings({});
const recordings = recordingRules(settings);
const recorded = new Map(
  recordings.map(({ record, labels }) => [record, new Set(["namespace", ...Object.keys(labels)])]),
);
/** Numbers that nobody counts: `time()` and `vector(1)` need none. */
const NEEDS_NO_METRIC = new Set(["ParleyWatchdog"]);

describe("every metric and label of a rule exists", () => {
  const alerts = alertRules(settings).map((rule) => ({ name: `${rule.alert} ${rule.severity}`, ...rule }));
  test.each(alerts)("$name $labels", ({ alert, expr }) => {
    expect(unknownNames(expr, recorded)).toEqual([]);
    expect(promqlNames(expr).selectors.length > 0).toBe(!NEEDS_NO_METRIC.has(alert));
  });
  test.each(recordings)("$record of $labels.slo", ({ expr }) => {
    expect(unknownNames(expr)).toEqual([]);
    expect(promqlNames(expr).selectors).not.toEqual([]);
  });
});

test("every recorded number is read by an alert", () => {
  const read = new Set(alertRules(settings).flatMap(({ expr }) => promqlNames(expr).selectors.map(({ name }) => name)));
  expect([...recorded.keys()].filter((name) => !read.has(name))).toEqual([]);
});

test("a name, a label of a selector and a label of a grouping that nobody exports are found", () => {
  expect(unknownNames('sum by (tenant) (rate(parley_cost_usd_total{model="m"}[5m]))')).toEqual([]);
  expect(unknownNames("rate(parley_cost_dollars_total[5m])")).toEqual(["there is no parley_cost_dollars_total"]);
  expect(unknownNames("parley_request_duration_seconds")).toEqual(["there is no parley_request_duration_seconds"]);
  expect(unknownNames('parley_turns_total{reason="ERROR"}')).toEqual(["parley_turns_total has no label reason"]);
  expect(unknownNames("max by (model) (up)")).toEqual(["nothing in it has the label model"]);
  expect(unknownNames("a and on (b) c or time() % 60 offset 5m")).toEqual([
    "there is no a",
    "there is no c",
    "nothing in it has the label b",
  ]);
});

test("the metrics of the sidecar's RPCs are those of its registry", async () => {
  const listed = Object.entries(SIDECAR_REQUEST_METRICS).map(([name, { type }]) => [name, type]);
  expect(await sidecarRequestRegistry()).toEqual(Object.fromEntries(listed));
});

test.each([
  [METRICS.requestDuration.name, REQUEST_LATENCY_BUCKETS],
  [METRICS.timeToFirstToken.name, FIRST_TOKEN_BUCKETS],
])("a target's time is a bound of %s", async (name, offered) => {
  const registry = new Registry();
  createMetrics({ version: "0", track: "stable", registry, processMetrics: false }).firstToken(1);
  const text = await registry.getSingleMetricAsString(name);
  const bounds = new Set([...text.matchAll(/le="([^"]+)"/g)].map(([, bound = ""]) => bound));
  expect(offered.filter((bound) => !bounds.has(bound))).toEqual([]);
});
