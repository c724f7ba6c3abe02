import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import type { ScriptedCall } from "../src/providers/scripted-model.ts";

/** A folder of `examples/teams`: a team, and what the scripted model answers it. */
export interface Example {
  /** Path of its parley.yaml. */
  readonly configFile: string;
  readonly script: readonly ScriptedCall[];
}

/** Reads an example by its folder's name. Throws an Error that says so where there is none. */
export function readExample(name: string): Example {
  const folder = join(import.meta.dirname, "../examples/teams", name);
  try {
    return {
      configFile: join(folder, "parley.yaml"),
      script: parse(readFileSync(join(folder, "script.yaml"), "utf8")) as ScriptedCall[],
    };
  } catch (cause) {
    throw new Error(`there is no example named ${name} in examples/teams`, { cause });
  }
}
