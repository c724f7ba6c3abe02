import { beforeAll, describe, expect, test } from "vitest";
import { dashboardPage } from "./dashboard-page.ts";
import { type ReadDashboard, readDashboards, troublesOf } from "./monitored-demo.ts";

// Every panel of both dashboards, as Grafana would ask for it, on a real Prometheus that has looked on while three teams
// worked and some things went wrong. What it looks like: make draw-dashboards.

let dashboards: ReadDashboard[];
beforeAll(async () => {
  dashboards = await readDashboards({ seconds: 12, withDayBefore: false });
});

test("every panel shows something, under legends that tell its series apart", () => {
  expect(dashboards.map(({ dashboard }) => dashboard.uid)).toEqual(["parley-operations", "parley-business"]);
  expect(dashboards.flatMap(troublesOf)).toEqual([]);
});

describe("what went wrong is seen", () => {
  test.each([
    ["Turns that failed per second, by reason", "MODEL_UNAVAILABLE"],
    ["RPCs that did not end with ok", "invalid_argument"],
    ["Breakers", /sim-500$/],
    ["Tokens without a price, in an hour", "default house-made-7b"],
    ["Anomalies, in an hour", "default call_loop"],
    ["Turns in flight and queued", "in flight"],
  ])("%s: %s", (title, name) => {
    const series = panelNamed(title).series.find((each) =>
      typeof name === "string" ? each.name === name : name.test(each.name),
    );
    expect(Math.max(...(series?.points ?? []).map(({ value }) => value || 0))).toBeGreaterThan(0);
  });
});

test("money adds up: by team, by model and by user the same was spent", () => {
  const [team = 0, model = 0, user = 0] = ["By team", "By model", "By user"].map((title) =>
    panelNamed(title).series.reduce((sum, { points }) => sum + (points.at(-1)?.value ?? 0), 0),
  );
  expect(team).toBeGreaterThan(0);
  // All series began within the time that is shown, so that nothing is extrapolated.
  expect(Math.abs(model - team) / team).toBeLessThan(1e-6);
  expect(Math.abs(user - team) / team).toBeLessThan(1e-6);
});

test("a page is drawn of each: every panel with its title, every line with its axis", () => {
  for (const { dashboard, panels } of dashboards) {
    const html = dashboardPage(dashboard, panels);
    expect(html.match(/<section class="panel"/g)).toHaveLength(panels.length);
    // But for those that are known to have none.
    const shown = panels.filter(({ whyEmpty }) => whyEmpty === undefined);
    expect(html.match(/No data/g) ?? []).toHaveLength(panels.length - shown.length);
    const lines = shown.filter(({ panel }) => panel.type === "timeseries");
    expect(html.match(/<svg/g)).toHaveLength(lines.length);
    expect(html.match(/aria-label="y-axis tick label"/g)).toHaveLength(lines.length);
  }
});

function panelNamed(title: string) {
  const found = dashboards.flatMap(({ panels }) => panels).find(({ panel }) => panel.title === title);
  if (found === undefined) throw new Error(`there is no panel ${title}`);
  return found;
}
