import { readFileSync } from "node:fs";
import { join } from "node:path";

/** Version of this release, as package.json has it. */
export function packageVersion(): string {
  const text = readFileSync(join(import.meta.dirname, "../package.json"), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}

/** Folder of the built console. */
export const consoleFolder = join(import.meta.dirname, "../web/dist");
