import { readdirSync } from "node:fs";
import { join } from "node:path";
import { CHART } from "../support/helm.ts";

export const GOLDEN = join(import.meta.dirname, "golden");

/** Every example values file, and the production overlay alone. */
export const EXAMPLES: readonly { readonly name: string; readonly file: string; readonly golden: string }[] = [
  ...readdirSync(join(CHART, "examples")).map((name) => join(CHART, "examples", name)),
  join(CHART, "values-production.yaml"),
].map((file) => {
  const name = file.slice(file.lastIndexOf("/") + 1).replace(/\.yaml$/, "");
  return { name, file, golden: join(GOLDEN, `${name}.yaml`) };
});

export function example(name: string): string {
  const found = EXAMPLES.find((one) => one.name === name);
  if (found === undefined) throw new Error(`there is no example ${name}`);
  return found.file;
}
