import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { loadAlertSettings } from "../../sidecar/alert-settings.ts";
import { renderDashboard } from "../../sidecar/dashboards/grafana-dashboard.ts";
import { operationsDashboard } from "../../sidecar/dashboards/operations-dashboard.ts";
import { environmentVariables } from "../../src/config.ts";
import { FORMER_METRICS, knownSeries } from "../alerts/known-metrics.ts";

// The tables for whoever moves from the FastAPI service around AutoGen name what there is.

const docs = readFileSync(join(import.meta.dirname, "../../docs/from-autogen.md"), "utf8");
const [, environment = ""] = /### Environment\n([^#]+)/.exec(docs) ?? [];

test("every metric that the docs send people to is there", () => {
  const named = new Set(docs.match(/parley_[a-z_]+/g));
  expect(named.size).toBeGreaterThan(5);
  const known = knownSeries();
  expect([...named].filter((name) => !known.has(name) && !known.has(`${name}_bucket`))).toEqual([]);
});

test("every variable that the docs send people to is there", () => {
  const cells = environment
    .split("\n")
    .filter((line) => line.startsWith("| `"))
    .map((line) => line.split(" | ")[1] ?? "");
  expect(cells.length).toBeGreaterThan(8);
  const named = cells.flatMap((cell) => cell.match(/`[A-Z_]+`/g) ?? []).map((name) => name.slice(1, -1));
  expect(named.filter((name) => !(name in environmentVariables))).toEqual([]);
});

test("the dashboard goes on with metrics that the docs have, and with no other", () => {
  const drawn = new Set(
    renderDashboard(operationsDashboard(loadAlertSettings({}))).match(/autogen_[a-z_]+?(?=_bucket|\b)/g),
  );
  expect([...drawn].toSorted()).toEqual(Object.keys(FORMER_METRICS).toSorted());
  for (const name of drawn) expect(docs).toContain(`\`${name}\``);
});
