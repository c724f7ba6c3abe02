import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, onTestFinished, test } from "vitest";
import { stringify } from "yaml";
import { alertRules, recordingRules } from "../../sidecar/alert-rules.ts";
import { loadAlertSettings } from "../../sidecar/alert-settings.ts";
import { businessDashboard } from "../../sidecar/dashboards/business-dashboard.ts";
import { type Dashboard, renderDashboard } from "../../sidecar/dashboards/grafana-dashboard.ts";
import { operationsDashboard } from "../../sidecar/dashboards/operations-dashboard.ts";
import { knownSeries } from "./known-metrics.ts";
import { promqlNames } from "./promql-names.ts";
import { unknownNames } from "./query-check.ts";

const settings = loadAlertSettings({});
const dashboards = [operationsDashboard(settings), businessDashboard()];
const recorded = new Map(
  recordingRules(settings).map(({ record, labels }) => [record, new Set(["namespace", ...Object.keys(labels)])]),
);

/** As Grafana has it: only what is looked at here. */
interface GrafanaDashboard {
  readonly uid: string;
  readonly templating: { readonly list: readonly { readonly name: string; readonly query: unknown }[] };
  readonly panels: readonly GrafanaPanel[];
}

interface GrafanaPanel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly gridPos: { readonly h: number; readonly w: number; readonly x: number; readonly y: number };
  readonly targets?: readonly {
    readonly refId: string;
    readonly expr: string;
    readonly datasource: { readonly uid: string };
  }[];
}

const rendered = dashboards.map((dashboard) => JSON.parse(renderDashboard(dashboard)) as GrafanaDashboard);

describe.each(rendered)("$uid", ({ templating, panels }) => {
  const variables = templating.list.map(({ name }) => name);
  const queries = panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => ({ title, expr })));

  test.each(queries)("$title: $expr", ({ expr }) => {
    expect(unknownNames(withValues(expr), recorded)).toEqual([]);
    const used = [...expr.matchAll(/\$(\w+)/g)].map(([, name = ""]) => name);
    expect(used.filter((name) => ![...variables, "__rate_interval", "__range"].includes(name))).toEqual([]);
  });

  test("promtool understands every query", async () => {
    const folder = await mkdtemp(join(tmpdir(), "parley-dashboard-"));
    onTestFinished(() => rm(folder, { recursive: true, force: true }));
    const rules = queries.map(({ expr }, index) => ({ record: `panel:${index}`, expr: withValues(expr) }));
    const file = join(folder, "panels.yml");
    await writeFile(file, stringify({ groups: [{ name: "panels", rules }] }));
    const { stdout } = await promisify(execFile)("promtool", ["check", "rules", file]);
    expect(stdout).toContain(`${queries.length} rules found`);
  });

  test("its variables are read from series that have the label", () => {
    const queried = templating.list.flatMap(({ query }) =>
      [...JSON.stringify(query).matchAll(/label_values\((\w+), (\w+)\)/g)].map(([, of = "", label = ""]) => ({
        of,
        label,
      })),
    );
    expect(queried).toHaveLength(variables.length - 1);
    for (const { of, label } of queried) expect(knownSeries().get(of)?.has(label), `${of} ${label}`).toBe(true);
  });

  test("its panels do not cover each other, and every one asks the chosen Prometheus", () => {
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
    for (const [index, { title, gridPos, targets = [] }] of panels.entries()) {
      expect(gridPos.x + gridPos.w, title).toBeLessThanOrEqual(24);
      expect(panels.slice(index + 1).filter((other) => cover(gridPos, other.gridPos))).toEqual([]);
      expect(new Set(targets.map(({ refId }) => refId)).size).toBe(targets.length);
      for (const { datasource } of targets) expect(datasource.uid).toBe("$" + "{datasource}");
    }
  });
});

test("what the issue asks for is there", () => {
  const titles = (dashboard: Dashboard | undefined) =>
    (dashboard?.rows ?? []).flatMap(({ title, panels }) => [title, ...panels.map((panel) => panel.title)]).join("\n");
  const [operations, business] = dashboards.map(titles);
  for (const word of [
    /^RPCs$/m,
    /errors/,
    /Latency/,
    /Tokens/,
    /Breakers/,
    /Turns/,
    /Per version/,
    /^Capacity and history$/m,
  ]) {
    expect(operations).toMatch(word);
  }
  for (const word of [/By team/, /By user/, /By use case/, /By model/, /left/, /Forecast/, /completed turn/]) {
    expect(business).toMatch(word);
  }
});

test("every metric of the service and the sidecar is on a dashboard or in a rule", () => {
  const queries = [
    ...rendered.flatMap(({ panels }) =>
      panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => withValues(expr))),
    ),
    ...alertRules(settings).map(({ expr }) => expr),
    ...recordingRules(settings).map(({ expr }) => expr),
  ];
  const shown = new Set(queries.flatMap((expr) => promqlNames(expr).selectors.map(({ name }) => base(name))));
  const all = new Set([...knownSeries().keys()].filter((name) => name.startsWith("parley_")).map(base));
  expect([...all].filter((name) => !shown.has(name))).toEqual([]);
});

/** A histogram's series are one metric. */
function base(name: string): string {
  return name.replace(/_(?:bucket|count|sum)$/, "");
}

/** The query as Grafana sends it. */
function withValues(expr: string): string {
  return expr.replaceAll("$__rate_interval", "5m").replaceAll("$__range", "6h").replaceAll(/\$\w+/g, ".*");
}

function cover(a: GrafanaPanel["gridPos"], b: GrafanaPanel["gridPos"]): boolean {
  return a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;
}
