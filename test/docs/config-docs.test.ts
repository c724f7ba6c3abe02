import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import * as z from "zod";
import { alertVariables } from "../../sidecar/alert-settings.ts";
import { environmentVariables } from "../../src/config.ts";
import { parleyYamlSchema, parseParleyYaml } from "../../src/parley-yaml.ts";
import { STANDARD_TOOLS } from "../../src/tools/standard-tools.ts";

const docs = readFileSync(join(import.meta.dirname, "../../docs/config.md"), "utf8");

test("the docs have a row for each variable, with its default and meaning, and no row for any other", () => {
  const rows = docs.split("\n").filter((line) => line.startsWith("| `"));
  const expected = Object.entries({ ...environmentVariables, ...alertVariables }).map(
    ([name, { default: value, meaning }]) => `| \`${name}\` | ${value === "" ? "" : `\`${value}\``} | ${meaning} |`,
  );
  expect(rows).toEqual(expected);
});

test("the example of parley.yaml is valid and shows every field, with its default where it has one", () => {
  const [, example = ""] = docs.match(/```yaml\n([\s\S]*?)```/) ?? [];
  const defaults = { model: "gpt-4o", maxRounds: 20, baseUrl: "https://api.openai.com/v1", apiKey: "key" };
  const env = { OPENAI_API_KEY: "key", FILES_TOKEN: "token", SEARCH_AUTHORIZATION: "Bearer token" };
  const tools = new Set(STANDARD_TOOLS.keys());
  const shown = parseParleyYaml(example, { fileName: "parley.yaml", defaults, tools, env });
  expect(shown.problems).toEqual([]);
  const empty = parseParleyYaml("", { fileName: "parley.yaml", defaults, tools, env });
  // Overrides, budgets and servers of tools have no defaults that an example could show.
  expect(shown.value).toEqual({
    ...empty.value,
    mcpServers: shown.value?.mcpServers,
    prices: { ...empty.value?.prices, overrides: shown.value?.prices.overrides },
    budgets: shown.value?.budgets,
  });
  expect([shown.value?.prices.overrides.length, shown.value?.budgets.length]).toEqual([2, 1]);
  expect([...(shown.value?.mcpServers.keys() ?? [])]).toEqual(["files", "search"]);
  for (const field of fieldsOf(z.toJSONSchema(parleyYamlSchema, { io: "input" }))) {
    expect(example).toMatch(new RegExp(`\\b${field}:`));
  }
});

test("the JSON Schema for editors is what validates the file: else `npm run generate:schema`", () => {
  const schema = JSON.parse(readFileSync(new URL("../../docs/parley.schema.json", import.meta.url), "utf8"));
  const title = "parley.yaml";
  expect(schema).toEqual(JSON.parse(JSON.stringify({ title, ...z.toJSONSchema(parleyYamlSchema, { io: "input" }) })));
});

/** Names of all fields of a JSON schema, of nested objects too. */
function fieldsOf(schema: unknown): string[] {
  if (typeof schema !== "object" || schema === null) return [];
  const properties = "properties" in schema && typeof schema.properties === "object" ? (schema.properties ?? {}) : {};
  return [...Object.keys(properties), ...Object.values(schema).flatMap(fieldsOf)];
}
