import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { valueRows } from "../../helm/values-table.ts";
import { CHART } from "../support/helm.ts";

const folder = join(import.meta.dirname, "../../docs/operations");
const pages = [
  ...readdirSync(folder)
    .filter((name) => name.endsWith(".md"))
    .map((name) => join(folder, name)),
  join(CHART, "README.md"),
];

describe.each(pages.map((path) => ({ path, name: path.slice(path.lastIndexOf("/") + 1) })))("$name", ({ path }) => {
  const text = readFileSync(path, "utf8");

  test("its links lead somewhere", () => {
    const targets = [...text.matchAll(/\]\(([^)#]+)/g)].map(([, target = ""]) => target);
    const local = targets.filter((target) => !/^https?:/.test(target));
    expect(local.filter((target) => !existsSync(join(dirname(path), target)))).toEqual([]);
  });

  test("the values that it names are the chart's", () => {
    const known = valueRows(readFileSync(join(CHART, "values.yaml"), "utf8")).map((row) => row.path);
    const tops = new Set(known.map((one) => one.split(".")[0]));
    const named = [...text.matchAll(/`([a-z][A-Za-z]*(?:\.[a-zA-Z]+)+)(?::[^`]*)?`/g)]
      .map(([, name = ""]) => name)
      .filter((name) => tops.has(name.split(".")[0]) && !/\.(yaml|md|json)$/.test(name));
    // A part of values may be named, and what is below a value that is a map.
    const isKnown = (name: string): boolean =>
      known.some((one) => one === name || one.startsWith(`${name}.`) || name.startsWith(`${one}.`));
    expect(named.filter((name) => !isKnown(name))).toEqual([]);
  });
});

test("keys that the docs make can chat", () => {
  const made = pages.flatMap((path) => readFileSync(path, "utf8").match(/^.*keys-cli\.ts make .*$/gm) ?? []);
  expect(made.length).toBeGreaterThan(0);
  expect(made.filter((command) => !/--user \S|chat:on_behalf/.test(command))).toEqual([]);
});

test("the grace period in the docs is the chart's", () => {
  const golden = readFileSync(join(import.meta.dirname, "golden/default.yaml"), "utf8");
  const seconds = /terminationGracePeriodSeconds: (\d+)/.exec(golden)?.[1];
  expect(readFileSync(join(folder, "upgrade.md"), "utf8")).toContain(`+ 5 = ${seconds} s`);
});
