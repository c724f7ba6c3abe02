import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

// PLACEHOLDERS: stands in for the alert rules, Alertmanager routes and dashboards until the catalogue of alerts makes
// them. Each file is small and valid, so that the chart's wrapping of it is tested for what it will do.
const folder = join(import.meta.dirname, "parley/files");

const rules = `# PLACEHOLDER, made by helm/placeholder-files.ts.
groups:
  - name: parley-placeholder
    rules:
      - alert: ParleyDown
        expr: absent(parley_turns_in_flight)
        for: 5m
        labels: { severity: critical, kind: availability }
        annotations:
          summary: No pod of Parley is scraped
          description: 'Nothing has been read from Parley for five minutes, value {{ $value }}.'
`;

const alertmanager = `# PLACEHOLDER, made by helm/placeholder-files.ts.
route:
  receiver: nobody
receivers:
  - name: nobody
`;

const dashboard = {
  uid: "parley-placeholder",
  title: "Parley (PLACEHOLDER, made by helm/placeholder-files.ts)",
  schemaVersion: 39,
  panels: [
    {
      id: 1,
      type: "timeseries",
      title: "Turns in flight by track",
      gridPos: { x: 0, y: 0, w: 24, h: 8 },
      targets: [{ refId: "A", expr: "sum by (track) (parley_turns_in_flight)", legendFormat: "{{track}}" }],
    },
  ],
};

const files = {
  "rules/parley.yaml": rules,
  "alertmanager/alertmanager.yaml": alertmanager,
  "dashboards/parley.json": `${JSON.stringify(dashboard, null, 2)}\n`,
};
for (const [path, text] of Object.entries(files)) {
  await mkdir(join(folder, path, ".."), { recursive: true });
  await writeFile(join(folder, path), text);
}
