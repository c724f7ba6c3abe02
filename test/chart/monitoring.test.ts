import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { CHART, type Manifest, renderObjects } from "../support/helm.ts";
import { example } from "./examples.ts";

const run = promisify(execFile);
const files = join(CHART, "files");
const rules = readdirSync(join(files, "rules"));
const dashboards = readdirSync(join(files, "dashboards"));

// What promtool and amtool have checked is what is shipped, to the letter.

describe.each(rules)("rules/%s", (name) => {
  test("promtool accepts it", async () => {
    const { stdout } = await run("promtool", ["check", "rules", join(files, "rules", name)]);
    expect(stdout).toMatch(/SUCCESS: [1-9]\d* rules found/);
  });

  test("is shipped as it is", async () => {
    const objects = await renderObjects({ files: [example("production")] });
    const shipped = objects.find(({ metadata }) => metadata.name === `parley-${name.replace(/\.yaml$/, "")}`);
    expect(shipped?.kind).toBe("PrometheusRule");
    expect(shipped.spec).toEqual(parse(await readFile(join(files, "rules", name), "utf8")));
  });
});

test("amtool accepts Alertmanager's configuration, and it is shipped as it is", async () => {
  const path = join(files, "alertmanager/alertmanager.yaml");
  const { stdout } = await run("amtool", ["check-config", path]);
  expect(stdout).toContain("SUCCESS");
  const objects = await renderObjects({ files: [example("production")] });
  const shipped = objects.find(({ metadata }) => metadata.name === "parley-alertmanager");
  expect(shipped?.stringData["alertmanager.yaml"].trim()).toBe((await readFile(path, "utf8")).trim());
});

test.each(dashboards)("dashboards/%s is shipped as it is", async (name) => {
  const objects = await renderObjects({ files: [example("production")] });
  const shipped = objects.find(({ metadata }) => metadata.name === `parley-dashboard-${name.replace(/\.json$/, "")}`);
  expect(shipped?.metadata.labels).toMatchObject({ grafana_dashboard: "1" });
  const dashboard = JSON.parse(shipped.data[name]) as Manifest;
  expect(dashboard).toEqual(JSON.parse(await readFile(join(files, "dashboards", name), "utf8")));
});

test("nothing of it is there unless it is asked for", async () => {
  const kinds = new Set((await renderObjects()).map(({ kind }) => kind));
  for (const kind of ["PodMonitor", "PrometheusRule", "Secret"]) expect(kinds).not.toContain(kind);
});
