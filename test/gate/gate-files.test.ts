import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { stringify } from "yaml";
import { parseGateFile } from "../../gate/conditions.ts";
import { GATE_METRICS, gateExpressions } from "../../gate/expressions.ts";
import { gateAlerts } from "../../gate/render.ts";
import { renderedFiles } from "../../helm/rendered-files.ts";
import { COST_METRICS } from "../../sidecar/cost-metrics.ts";
import { METRICS } from "../../src/metrics.ts";
import { unknownNames } from "../alerts/query-check.ts";
import { example } from "../chart/examples.ts";
import { renderObjects } from "../support/helm.ts";
import { kubeconform } from "../support/kubernetes-schemas.ts";

const project = join(import.meta.dirname, "../..");

test.each([...renderedFiles()])("%s is current: npm run generate:chart writes it", async (path, text) => {
  expect(await readFile(join(project, path), "utf8")).toBe(text);
});

test("the chart's default conditions are those that Parley brings", async () => {
  const objects = await renderObjects({ files: [example("canary-5")] });
  const map = objects.find(({ metadata }) => metadata.name === "parley-gate");
  const { selector, tracks, ...rest } = parseGateFile(map.data["gate.yaml"]);
  const brought = parseGateFile(await readFile(join(project, "gate/gate.yaml"), "utf8"));
  expect(selector).toBe('namespace="chat"');
  expect(tracks).toEqual({
    canary: expect.stringMatching(/^track="canary",version="[\w.-]+"$/),
    stable: 'track="stable"',
  });
  expect({ ...rest, selector: brought.selector, tracks: brought.tracks }).toEqual(brought);
});

test.each([
  ["window: 15", "window: "],
  ["window: 15m\nconditions: {}", "conditions: must name at least one"],
  ["window: 15m\nconditions: {errorRatio: {factor: 0}}", "conditions.errorRatio.factor"],
  ["window: 15m\nconditions: {errorRate: {factor: 2}}", "errorRate"],
  [
    "window: 15m\nselector: '{a=\"b\"}'\nconditions: {unreadableSessions: {max: 0}}",
    "selector: must be label matchers",
  ],
  ["window: 15m\nminTurns: 0\nconditions: {unreadableSessions: {max: 0}}", "minTurns"],
  ["a: [", ""],
])("the file %j is refused", (text, message) => {
  expect(() => parseGateFile(text)).toThrow(message);
});

test("there are the metrics and labels that the gate reads", () => {
  const known = new Set(
    [...Object.values(METRICS), ...Object.values(COST_METRICS)].map(({ name, type }) =>
      type === "histogram" ? `${name}_bucket` : name,
    ),
  );
  expect(Object.values(GATE_METRICS).filter((name) => !known.has(name))).toEqual([]);
  const file = parseGateFile(stringify({ window: "15m", conditions: ALL }));
  for (const { expr } of gateAlerts(file)) expect(unknownNames(expr)).toEqual([]);
});

const ALL = {
  errorRatio: { factor: 1.5 },
  timeToFirstToken: { factor: 1.3 },
  costPerTurn: { factor: 1.3 },
  breakerOpen: { maxShare: 0.05 },
  unreadableSessions: { max: 0 },
};

test("a condition that is not named is not asked", () => {
  const file = parseGateFile("window: 15m\nconditions: {unreadableSessions: {max: 0}}");
  expect(gateExpressions(file).conditions.map(({ name }) => name)).toEqual(["unreadableSessions"]);
});

test("Flagger and Argo accept their forms, and all the manifests of the docs", async () => {
  const { binary, args } = await kubeconform();
  const folders = ["flagger", "argo"].map((name) => join(project, "docs/operations", name));
  const { stdout } = await promisify(execFile)(binary, [...args, ...folders]);
  expect(stdout).toMatch(/Valid: [1-9]\d*, Invalid: 0, Errors: 0, Skipped: 0/);
});
