import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, onTestFinished, test } from "vitest";
import { stringify } from "yaml";
import { valueRows } from "../../helm/values-table.ts";
import { readSnippets, type Snippet } from "../docs/snippets.ts";
import { CHART, helm, objectsOf, render } from "../support/helm.ts";
import { kubeconform } from "../support/kubernetes-schemas.ts";

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

const snippets = readSnippets().filter(({ document }) => /^(docs\/operations|helm)\//.test(document));
const at = ({ document, line }: Snippet): string => `${document}:${line}`;

/** What a reader has in `yours.yaml`, with what the production overlay wants of it. */
const YOURS = { image: { repository: "registry.test/parley", tag: "0.5.0" }, istio: { hosts: ["chat.example.com"] } };

async function folderWithYours(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "parley-chart-docs-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  await writeFile(join(folder, "yours.yaml"), stringify(YOURS));
  return folder;
}

describe("blocks of YAML", () => {
  const blocks = snippets.filter(({ language }) => language === "yaml").map((one) => ({ ...one, at: at(one) }));

  test.each(blocks.filter(({ code }) => !code.startsWith("spec:")))("$at is values that render", async ({ code }) => {
    const folder = await folderWithYours();
    await writeFile(join(folder, "block.yaml"), code);
    const files = [join(CHART, "values-production.yaml"), join(folder, "yours.yaml"), join(folder, "block.yaml")];
    const { exitCode, stderr } = await render({ files });
    expect(exitCode, stderr).toBe(0);
  });

  test.each(blocks.filter(({ code }) => code.startsWith("spec:")))("$at is of an Alertmanager", async ({ code }) => {
    const folder = await folderWithYours();
    const file = join(folder, "alertmanager.yaml");
    await writeFile(
      file,
      `apiVersion: monitoring.coreos.com/v1\nkind: Alertmanager\nmetadata: { name: main }\n${code}\n`,
    );
    const { binary, args } = await kubeconform();
    const { stdout } = await promisify(execFile)(binary, [...args, file]);
    expect(stdout).toContain("Valid: 1");
  });
});

describe("commands of Helm", () => {
  const commands = snippets
    .filter(({ language }) => language === "sh")
    .flatMap((snippet) =>
      [
        ...snippet.code
          .replaceAll("\\\n", " ")
          .matchAll(/\bhelm (upgrade|template|test|history|rollback)\b([^'#|\n]*)/g),
      ].map(([command, verb = "", words = ""]) => ({ at: at(snippet), command, verb, words })),
    );

  test("all of the chart's commands are among them", () => {
    expect(new Set(commands.map(({ verb }) => verb))).toEqual(
      new Set(["upgrade", "template", "test", "history", "rollback"]),
    );
  });

  test.each(commands)("$at: $command has flags and files that there are", async ({ verb, words }) => {
    const { stdout } = await helm(verb, "--help");
    const flags = words.match(/(?<=\s)--?[a-z][\w-]*/g) ?? [];
    expect(flags.filter((flag) => !new RegExp(`(^|\\s)${flag}[,\\s=]`, "m").test(stdout))).toEqual([]);
    const named = [...words.matchAll(/(?:-f|--values) (helm\/\S+)/g)].map(([, file = ""]) => file);
    expect(named.filter((file) => !existsSync(join(CHART, "../..", file)))).toEqual([]);
  });

  test.each(commands.filter(({ verb }) => verb === "template"))("$at: $command renders", async ({ words }) => {
    const folder = await folderWithYours();
    const replaced = words
      .trim()
      .split(/\s+/)
      .map((word) => (word === "yours.yaml" ? join(folder, word) : word.replace(/^helm\/parley/, CHART)));
    // Behind "| kubectl" a cluster takes over.
    const { exitCode, stdout, stderr } = await helm("template", ...replaced, "--set", "redis.existingSecret=r");
    expect(exitCode, stderr).toBe(0);
    expect(objectsOf(stdout).length).toBeGreaterThan(0);
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
