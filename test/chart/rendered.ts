import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parse } from "yaml";
import { CHART, type Manifest, type RenderOptions, renderObjects } from "../support/helm.ts";
import { INVARIANTS } from "./invariants.ts";
import type { Rendered } from "./manifests.ts";

/** A render together with the values that it was made from. `set` takes what is no list. */
export async function rendered(options: RenderOptions): Promise<Rendered> {
  let values = parse(await readFile(join(CHART, "values.yaml"), "utf8")) as Manifest;
  for (const file of options.files ?? []) values = merged(values, parse(await readFile(file, "utf8")));
  for (const assignment of options.set ?? []) {
    const [path = "", text = ""] = assignment.split(/=(.*)/s);
    values = merged(
      values,
      path.split(".").reduceRight<unknown>((inner, key) => ({ [key]: inner }), parse(text)),
    );
  }
  return { objects: await renderObjects(options), values };
}

/** What does not hold, as `invariant: what is wrong`. */
export function violations(of: Rendered): string[] {
  return INVARIANTS.flatMap(({ name, check }) => {
    try {
      return check(of).map((problem) => `${name}: ${problem}`);
    } catch (error) {
      // A render without the part that is looked for.
      return [`${name}: ${String(error)}`];
    }
  });
}

/** As Helm merges: maps by key, everything else is replaced. */
function merged(base: Manifest, over: Manifest): Manifest {
  if (!isMap(base) || !isMap(over)) return over;
  const result = { ...base };
  for (const [key, value] of Object.entries(over)) result[key] = key in base ? merged(base[key], value) : value;
  return result;
}

function isMap(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
