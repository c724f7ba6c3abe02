import { readFileSync } from "node:fs";
import { join } from "node:path";

export const PROJECT = join(import.meta.dirname, "../..");

/** What the Dockerfile says of the image: where it runs, as whom, with what. */
export interface Image {
  readonly env: Readonly<Record<string, string>>;
  readonly entrypoint: readonly string[];
  readonly command: readonly string[];
  readonly user: number;
}

/** Reads it out of the project's Dockerfile: of its last stage, whose folder is the project. */
export function readImage(): Image {
  const text = readFileSync(join(PROJECT, "Dockerfile"), "utf8");
  const stage = text.slice(text.lastIndexOf("\nFROM "));
  const line = (instruction: string): string => {
    const found = new RegExp(`^${instruction} (.*)$`, "m").exec(stage)?.[1];
    if (found === undefined) throw new Error(`the Dockerfile's last stage has no ${instruction}`);
    return found;
  };
  const [tini, dashes, ...entrypoint] = JSON.parse(line("ENTRYPOINT")) as string[];
  // The first process of a container is tini, which reaps what others leave behind; here init does.
  if (tini !== "tini" || dashes !== "--") throw new Error("the Dockerfile's ENTRYPOINT is another than tini --");
  return {
    env: Object.fromEntries(
      line("ENV")
        .split(" ")
        .map((one) => one.split("=") as [string, string]),
    ),
    entrypoint,
    command: JSON.parse(line("CMD")) as string[],
    user: Number(line("USER").split(":")[0]),
  };
}
