import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { renderAlertRules } from "./alert-rules.ts";
import { type AlertSettings, loadAlertSettings } from "./alert-settings.ts";
import { renderAlertmanagerConfig } from "./alertmanager-config.ts";
import { businessDashboard } from "./dashboards/business-dashboard.ts";
import { renderDashboard } from "./dashboards/grafana-dashboard.ts";
import { operationsDashboard } from "./dashboards/operations-dashboard.ts";

/** What Prometheus, Alertmanager and Grafana read, by file name. */
export function monitoringFiles(settings: AlertSettings): Readonly<Record<string, string>> {
  return {
    "rules.yml": renderAlertRules(settings),
    "alertmanager.yml": renderAlertmanagerConfig(),
    "operations-dashboard.json": renderDashboard(operationsDashboard(settings)),
    "business-dashboard.json": renderDashboard(businessDashboard()),
  };
}

// npm run monitoring -- <folder>: writes them, by the environment's settings.
if (import.meta.main) {
  const [folder] = process.argv.slice(2);
  if (folder === undefined) {
    process.stderr.write("Name a folder: npm run monitoring -- <folder>\n");
    process.exit(2);
  }
  mkdirSync(folder, { recursive: true });
  for (const [name, text] of Object.entries(monitoringFiles(loadAlertSettings(process.env)))) {
    writeFileSync(join(folder, name), text);
    process.stdout.write(`${join(folder, name)}\n`);
  }
}
