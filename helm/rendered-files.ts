import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import * as z from "zod";
import { gateFile, parseGateFile } from "../gate/conditions.ts";
import { renderArgo, renderFlagger, renderGateRules } from "../gate/render.ts";
import { loadAlertSettings } from "../sidecar/alert-settings.ts";
import { monitoringFiles } from "../sidecar/render-monitoring.ts";
import { withTable } from "./values-table.ts";

const project = join(import.meta.dirname, "..");

/**
 * Files that are made from others, by path in the project: what the chart only wraps, the gate's other forms, the table of
 * values. `npm run generate:chart` writes them; a test says whether they are current.
 */
export function renderedFiles(): ReadonlyMap<string, string> {
  const read = (path: string): string => readFileSync(join(project, path), "utf8");
  const gate = parseGateFile(read("gate/gate.yaml"));
  const schema = z.toJSONSchema(gateFile, { io: "input" });
  const monitoring = monitoringFiles(loadAlertSettings({}));
  const files = new Map([
    ["gate/gate.schema.json", `${JSON.stringify({ title: "Conditions of parley gate", ...schema }, null, 2)}\n`],
    ["helm/parley/files/rules/canary.yaml", renderGateRules(gate)],
    ["docs/operations/flagger/metric-templates.yaml", renderFlagger(gate)],
    ["docs/operations/argo/analysis-template.yaml", renderArgo(gate)],
    ["helm/parley/README.md", withTable(read("helm/parley/README.md"), read("helm/parley/values.yaml"))],
  ]);
  for (const [name, path] of Object.entries(OF_MONITORING))
    files.set(`helm/parley/files/${path}`, monitoring[name] ?? "");
  return files;
}

/** Where the chart keeps what `npm run monitoring` writes. */
const OF_MONITORING = {
  "rules.yml": "rules/parley.yaml",
  "alertmanager.yml": "alertmanager/alertmanager.yaml",
  "operations-dashboard.json": "dashboards/operations.json",
  "business-dashboard.json": "dashboards/business.json",
} as const;

if (import.meta.main) {
  for (const [path, text] of renderedFiles()) {
    mkdirSync(dirname(join(project, path)), { recursive: true });
    writeFileSync(join(project, path), text);
  }
}
