import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { renderAlertRules } from "./alert-rules.ts";
import { loadAlertSettings } from "./alert-settings.ts";
import { renderAlertmanagerConfig } from "./alertmanager-config.ts";
import { businessDashboard } from "./dashboards/business-dashboard.ts";
import { renderDashboard } from "./dashboards/grafana-dashboard.ts";
import { operationsDashboard } from "./dashboards/operations-dashboard.ts";

// npm run monitoring -- <folder>: what Prometheus, Alertmanager and Grafana read, as files, by the environment's settings.
const [folder] = process.argv.slice(2);
if (folder === undefined) {
  process.stderr.write("Name a folder: npm run monitoring -- <folder>\n");
  process.exit(2);
}
const settings = loadAlertSettings(process.env);
const files = {
  "rules.yml": renderAlertRules(settings),
  "alertmanager.yml": renderAlertmanagerConfig(),
  "operations-dashboard.json": renderDashboard(operationsDashboard(settings)),
  "business-dashboard.json": renderDashboard(businessDashboard()),
};
mkdirSync(folder, { recursive: true });
for (const [name, text] of Object.entries(files)) {
  writeFileSync(join(folder, name), text);
  process.stdout.write(`${join(folder, name)}\n`);
}
