import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { gateFile, parseGateFile } from "./conditions.ts";
import { renderArgo, renderFlagger, renderRules } from "./render.ts";

/** What is made from the conditions that Parley brings, by path in the project. */
export async function renderedFiles(): Promise<ReadonlyMap<string, string>> {
  const file = parseGateFile(await readFile(join(import.meta.dirname, "gate.yaml"), "utf8"));
  const schema = z.toJSONSchema(gateFile, { io: "input" });
  return new Map([
    ["gate/gate.schema.json", `${JSON.stringify({ title: "Conditions of parley gate", ...schema }, null, 2)}\n`],
    ["helm/parley/files/rules/canary.yaml", renderRules(file)],
    ["docs/operations/flagger/metric-templates.yaml", renderFlagger(file)],
    ["docs/operations/argo/analysis-template.yaml", renderArgo(file)],
  ]);
}

if (import.meta.main) {
  for (const [path, text] of await renderedFiles()) await writeFile(join(import.meta.dirname, "..", path), text);
}
