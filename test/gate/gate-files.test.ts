import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { parseGateFile } from "../../gate/conditions.ts";
import { GATE_METRICS, gateExpressions } from "../../gate/expressions.ts";
import { renderedFiles } from "../../gate/write-rendered.ts";
import { METRICS } from "../../src/metrics.ts";
import { example } from "../chart/examples.ts";
import { renderObjects } from "../support/helm.ts";
import { kubeconform } from "../support/kubernetes-schemas.ts";

const project = join(import.meta.dirname, "../..");

test("what is made from the conditions is current: node gate/write-rendered.ts writes it", async () => {
  for (const [path, text] of await renderedFiles())
    expect({ path, text: await readFile(join(project, path), "utf8") }).toEqual({ path, text });
});

test("the chart's default conditions are those that Parley brings", async () => {
  const objects = await renderObjects({ files: [example("canary-5")] });
  const map = objects.find(({ metadata }) => metadata.name === "parley-gate");
  const { selector, ...rest } = parseGateFile(map.data["gate.yaml"]);
  const brought = parseGateFile(await readFile(join(project, "gate/gate.yaml"), "utf8"));
  expect(selector).toBe('namespace="chat"');
  expect({ selector: "", ...rest }).toEqual(brought);
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

/** Metrics that come with the sidecar and with the refusal of unreadable sessions. */
const ELSEWHERE: readonly string[] = [GATE_METRICS.cost, GATE_METRICS.unreadableSessions];

test("the service has the metrics and labels that the gate reads", () => {
  const known = new Set(
    Object.values(METRICS).flatMap(({ name, type }) => (type === "histogram" ? [`${name}_bucket`] : [name])),
  );
  const read: readonly string[] = Object.values(GATE_METRICS);
  expect(read.filter((name) => !known.has(name) && !ELSEWHERE.includes(name))).toEqual([]);
  expect(METRICS.turns.labels).toContain("finish_reason");
  expect(METRICS.agentErrors.labels).toContain("error_type");
});

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
