import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { type DescMethod, type DescService, fromJsonString } from "@bufbuild/protobuf";
import { describe, expect, onTestFinished, test } from "vitest";
import { stringify } from "yaml";
import { parseGateFile } from "../../gate/conditions.ts";
import { gateAlerts } from "../../gate/render.ts";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { UsageService } from "../../gen/parley/usage/v1/usage_service_pb.js";
import { alertRules } from "../../sidecar/alert-rules.ts";
import { alertVariables, loadAlertSettings } from "../../sidecar/alert-settings.ts";
import { environmentVariables } from "../../src/config.ts";
import { errorTable } from "../../src/rpc/error-table.ts";
import { knownSeries } from "./known-metrics.ts";
import { unknownNames } from "./query-check.ts";

const root = join(import.meta.dirname, "../..");
const folder = join(root, "docs/runbooks");
const gate = parseGateFile(readFileSync(join(root, "gate/gate.yaml"), "utf8"));
const alerts = [...alertRules(loadAlertSettings({})), ...gateAlerts(gate)];
const names = [...new Set(alerts.map(({ alert }) => alert))];
const SERVICES: readonly DescService[] = [ChatService, SessionService, UsageService];

const pages = await Promise.all(
  (await readdir(folder)).map(async (file) => ({
    name: file.replace(/\.md$/, ""),
    text: await readFile(join(folder, file), "utf8"),
  })),
);

test("each alert has its page, and each page its alert", () => {
  expect(pages.map(({ name }) => name).toSorted()).toEqual(names.toSorted());
});

describe.each(pages)("$name", ({ name, text }) => {
  test("says what it means, what it does to people, how to find the cause and what to do", () => {
    const [title, ...sections] = text.match(/^##? .*$/gm) ?? [];
    expect(title).toBe(`# ${name}`);
    expect(sections).toEqual(["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"]);
    const bodies = text.split(/^## .*$/m).slice(1);
    for (const body of bodies) expect(body.trim().length).toBeGreaterThan(10);
    expect(bodies[2]).toContain("```sh");
  });

  test("asks Prometheus for metrics and labels that exist, in queries that it understands", async () => {
    const queries = queriesOf(text);
    expect(queries.length).toBeGreaterThan(0);
    for (const query of queries) expect(unknownNames(query), query).toEqual([]);
    const file = join(await temporary(), "queries.yml");
    const rules = queries.map((expr, index) => ({ record: `query:${index}`, expr }));
    await writeFile(file, stringify({ groups: [{ name, rules }] }));
    await expect(promisify(execFile)("promtool", ["check", "rules", file])).resolves.toBeDefined();
  });

  test("calls RPCs that exist, with requests that they can read", () => {
    for (const { service, method, body } of callsOf(text)) {
      const called = methodOf(service, method);
      expect(() => fromJsonString(called.input, body), `${method} ${body}`).not.toThrow();
    }
  });

  test("names metrics, reasons, variables, alerts, pages and scripts that exist", async () => {
    const series = knownSeries();
    for (const metric of text.match(/\bparley_[a-z0-9_]*[a-z0-9]\b/g) ?? [])
      expect(series.has(metric), metric).toBe(true);
    const variables = new Set([...Object.keys(environmentVariables), ...Object.keys(alertVariables)]);
    const known = new Set([...variables, ...Object.keys(errorTable), ...WORDS]);
    const words = text.match(/`[A-Z][A-Z_]{3,}`/g) ?? [];
    expect(words.filter((word) => !known.has(word.replaceAll("`", "")))).toEqual([]);
    for (const alert of text.match(/\bParley[A-Z]\w+/g) ?? []) expect(names).toContain(alert);
    const { scripts } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as {
      scripts: Record<string, string>;
    };
    for (const [, script = ""] of text.matchAll(/npm run ([\w:-]+)/g)) expect(scripts).toHaveProperty([script]);
    for (const [, link = "", anchor = ""] of text.matchAll(/\]\(([^)#]*\.md)#?([^)]*)\)/g)) {
      const linked = await readFile(join(folder, link), "utf8");
      const anchors = [...linked.matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
        heading.toLowerCase().replaceAll(" ", "-"),
      );
      if (anchor !== "") expect(anchors).toContain(anchor);
    }
  });
});

test("the pages together call RPCs, so that the checks above check something", () => {
  const called = new Set(pages.flatMap(({ text }) => callsOf(text)).map(({ method }) => method));
  expect([...called].toSorted()).toEqual([
    "ListBudgets",
    "ListMessages",
    "ListPrices",
    "QueryUsage",
    "RepriceUsage",
    "SetBudget",
  ]);
});

/** Words in capitals that are neither variables nor reasons: a finish reason. */
const WORDS = ["ERROR"];

function queriesOf(text: string): string[] {
  return [...text.matchAll(/^promtool query instant "\$PROMETHEUS" '([^']+)'$/gm)].map(([, query = ""]) => query);
}

function callsOf(text: string): { service: string; method: string; body: string }[] {
  const calls = text.matchAll(/^grpcurl .* -d '([^']*)' localhost:\d+ ([\w.]+)\/(\w+)/gm);
  return [...calls].map(([, body = "", service = "", method = ""]) => ({ service, method, body }));
}

function methodOf(service: string, name: string): DescMethod {
  const method = SERVICES.find(({ typeName }) => typeName === service)?.methods.find((one) => one.name === name);
  if (method === undefined) throw new Error(`there is no ${service}/${name}`);
  return method;
}

async function temporary(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "parley-runbook-"));
  onTestFinished(() => rm(path, { recursive: true, force: true }));
  return path;
}
