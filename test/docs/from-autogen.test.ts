import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { DescMessage } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import * as z from "zod";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { loadAlertSettings } from "../../sidecar/alert-settings.ts";
import { renderDashboard } from "../../sidecar/dashboards/grafana-dashboard.ts";
import { operationsDashboard } from "../../sidecar/dashboards/operations-dashboard.ts";
import { environmentVariables } from "../../src/config.ts";
import { handoffTools } from "../../src/engine/handoff.ts";
import { askTools, PERSON } from "../../src/engine/person.ts";
import { parleyYamlSchema } from "../../src/parley-yaml.ts";
import { STANDARD_TOOLS } from "../../src/tools/standard-tools.ts";
import { FORMER_METRICS, knownSeries } from "../alerts/known-metrics.ts";

const docs = readFileSync(join(import.meta.dirname, "../../docs/from-autogen.md"), "utf8");
const [, section = ""] = docs.split(/^## AutoGen's names$/m);
const [own = ""] = section.split(/^## /m);
const [, environment = ""] = /### Environment\n([^#]+)/.exec(docs) ?? [];

/** Cells of the tables' rows, without heads. */
const rows = own
  .split("\n")
  .filter((line) => line.startsWith("| ") && !line.startsWith("| AutoGen |"))
  .map((line) => line.slice(1, -1).split(/(?<!\\)\|/));

const codeIn = (text: string): string[] => [...text.matchAll(/`([^`]+)`/g)].map(([, name = ""]) => name);

/** All that Parley calls by a name. */
function knownNames(): Set<string> {
  const agent = { name: "a", systemMessage: "", model: "m", temperature: 0, contextWindowTokens: 1, tools: [] };
  const [handoff] = handoffTools({ ...agent, handoffs: [{ to: "<agent>", description: "" }] });
  const methods = [ChatService, SessionService].flatMap(({ methods: all }) => all);
  return new Set([
    ...namesIn(z.toJSONSchema(parleyYamlSchema, { io: "input" })),
    ...Object.keys(environmentVariables),
    ...STANDARD_TOOLS.keys(),
    ...askTools({ ...agent, asksPerson: true }).map(({ name }) => name),
    handoff?.name ?? "",
    PERSON,
    ...methods.flatMap(({ name, input, output }) => [name, ...fieldsOf(input), ...fieldsOf(output)]),
    ...Object.keys(packageEntries()),
  ]);
}

/** Names of fields and values of a JSON schema. */
function namesIn(schema: unknown): string[] {
  if (Array.isArray(schema)) return schema.flatMap(namesIn);
  if (typeof schema !== "object" || schema === null) return [];
  const properties = "properties" in schema ? Object.keys(schema.properties ?? {}) : [];
  const values = "enum" in schema && Array.isArray(schema.enum) ? schema.enum.map(String) : [];
  return [...properties, ...values, ...Object.values(schema).flatMap(namesIn)];
}

function fieldsOf(message: DescMessage, seen = new Set<string>()): string[] {
  if (seen.has(message.typeName)) return [];
  seen.add(message.typeName);
  return message.fields.flatMap((field) => [field.name, ...(field.message ? fieldsOf(field.message, seen) : [])]);
}

function packageEntries(): Record<string, true> {
  const build = readFileSync(join(import.meta.dirname, "../../standalone/build-package.ts"), "utf8");
  return Object.fromEntries(
    [...build.matchAll(/^ {2}(\w+): \{ source: /gm)].map(([, name]) => [`parley/${name}`, true]),
  );
}

test("each name on Parley's side exists", () => {
  const known = knownNames();
  const named = rows.flatMap(([, parley = ""]) => codeIn(parley));
  expect(named.length).toBeGreaterThan(80);
  expect(named.filter((name) => !known.has(name))).toEqual([]);
});

test("no name of AutoGen's stands twice for different things, and each row says where it is", () => {
  expect(rows.every((cells) => cells.length === 2 && cells.every((cell) => cell.trim() !== ""))).toBe(true);
  const named = rows.flatMap(([autogen = ""]) => codeIn(autogen));
  const twice = named.filter((name, at) => named.indexOf(name) !== at);
  // Agents and selectors each have a client; what an agent is told comes in one row.
  expect(twice).toEqual(["model_client"]);
});

test("the names that conditions have in turn_completed are AutoGen's, each in the table", () => {
  const source = readFileSync(join(import.meta.dirname, "../../src/engine/termination.ts"), "utf8");
  const names = [...source.matchAll(/: "(\w+Termination)"/g)].map(([, name = ""]) => name);
  expect(names).toHaveLength(7);
  const table = new Map(rows.flatMap(([autogen = "", parley = ""]) => codeIn(autogen).map((name) => [name, parley])));
  for (const [, field = "", name = ""] of source.matchAll(/^ {2}(\w+): "(\w+Termination)"/gm)) {
    expect(table.get(name), name).toContain(`\`${field}\``);
  }
});

// The tables for whoever moves from the FastAPI service around AutoGen name what there is.

test("every metric that the docs send people to is there", () => {
  const named = new Set(docs.match(/parley_[a-z_]+/g));
  expect(named.size).toBeGreaterThan(5);
  const known = knownSeries();
  expect([...named].filter((name) => !known.has(name) && !known.has(`${name}_bucket`))).toEqual([]);
});

test("every variable that the docs send people to is there", () => {
  const cells = environment
    .split("\n")
    .filter((line) => line.startsWith("| `"))
    .map((line) => line.split(" | ")[1] ?? "");
  expect(cells.length).toBeGreaterThan(8);
  const named = cells.flatMap((cell) => cell.match(/`[A-Z_]+`/g) ?? []).map((name) => name.slice(1, -1));
  expect(named.filter((name) => !(name in environmentVariables))).toEqual([]);
});

test("the dashboard goes on with metrics that the docs have, and with no other", () => {
  const drawn = new Set(
    renderDashboard(operationsDashboard(loadAlertSettings({}))).match(/autogen_[a-z_]+?(?=_bucket|\b)/g),
  );
  expect([...drawn].toSorted()).toEqual(Object.keys(FORMER_METRICS).toSorted());
  for (const name of drawn) expect(docs).toContain(`\`${name}\``);
});
