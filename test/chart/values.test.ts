import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { valueRows } from "../../helm/values-table.ts";
import { CHART, type Manifest } from "../support/helm.ts";

const text = (name: string): Promise<string> => readFile(join(CHART, name), "utf8");

test("a value without a comment is no value", () => {
  expect(() => valueRows("# Head.\n\n# A.\na: 1\n\nb:\n  c: 2\n")).toThrow("b.c: no comment says what it is");
});

test("the names that RELEASES fixed are there", async () => {
  const paths = new Set(valueRows(await text("values.yaml")).map(({ path }) => path));
  const fixed =
    `istio.enabled istio.hosts istio.gateways image.repository image.tag image.digest stable.replicas stable.version
    stable.image canary.enabled canary.owner canary.version canary.image canary.replicas canary.weight canary.preview.enabled
    canary.preview.header canary.preview.value canary.mirror.percent canary.shadow.safe canary.analysis.minTurns
    canary.analysis.errorRatioFactor canary.analysis.ttftFactor canary.analysis.costPerTurnFactor canary.analysis.window
    traffic.outlierDetection.enabled traffic.retries.attempts traffic.connectionPool.maxConnections drain.preStopSeconds
    drain.maxTurnSeconds drain.sidecarFlushSeconds redis.url redis.existingSecret sidecar.enabled autoscaling.enabled
    pdb.enabled networkPolicy.enabled monitoring.podMonitor.enabled monitoring.rules.enabled monitoring.dashboards.enabled
    monitoring.alertmanager.enabled state.writeSchema state.check.enabled model.existingSecret`.split(/\s+/);
  expect(fixed.filter((path) => !paths.has(path))).toEqual([]);
});

test("the schema knows each value, and values.yaml each of the schema", async () => {
  const values = parse(await text("values.yaml")) as Manifest;
  const schema = JSON.parse(await text("values.schema.json")) as Manifest;
  const compare = (value: Manifest, of: Manifest, path: string): string[] => {
    if (of?.properties === undefined || value === null || typeof value !== "object") return [];
    // What is given to a track, or to Kubernetes, need not have a default.
    if (Object.keys(value).length === 0) return [];
    const names = new Set([...Object.keys(value), ...Object.keys(of.properties)]);
    return [...names].flatMap((name) => {
      const at = `${path}.${name}`;
      if (at === ".global" || name === "claims") return [];
      if (!(name in value)) return [`${at} has no default`];
      if (!(name in of.properties)) return [`${at} is not in the schema`];
      return compare(value[name], of.properties[name], at);
    });
  };
  expect(compare(values, schema, "")).toEqual([]);
});

test("no object of the schema lets unknown names in", async () => {
  const schema = JSON.parse(await text("values.schema.json")) as Manifest;
  const open = (of: Manifest, path: string): string[] => {
    if (typeof of !== "object" || of === null) return [];
    const here = of.properties !== undefined && of.additionalProperties !== false ? [path] : [];
    return [...here, ...Object.entries(of).flatMap(([key, value]) => open(value, `${path}/${key}`))];
  };
  expect(open(schema, "")).toEqual([]);
});
