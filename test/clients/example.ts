import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { stripVTControlCharacters } from "node:util";

const EXAMPLES = join(import.meta.dirname, "../../examples");

/** What Cargo compiles is kept between checkouts, as Go, Maven, npm and pip do by themselves. */
const CARGO_TARGET_DIR = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "parley/cargo-target");

/** A line of an example's output. */
export interface Seen {
  readonly client: string;
  readonly step: string;
  readonly saw: Readonly<Record<string, unknown>>;
}

/** Runs the commands that the README of `examples/<folder>` has under "Get ready". */
export async function getReady(folder: string): Promise<void> {
  await runCommands(folder, "Get ready", {});
}

/** Runs those under "Run", and gives back what they printed. Rejects when one of them fails. */
export async function runExample(folder: string, env: Readonly<Record<string, string>>): Promise<Seen[]> {
  const output = await runCommands(folder, "Run", env);
  // Maven colours its silence.
  const lines = stripVTControlCharacters(output)
    .split("\n")
    .filter((line) => line.startsWith("{"));
  return lines.map((line) => JSON.parse(line) as Seen);
}

async function runCommands(folder: string, heading: string, env: Readonly<Record<string, string>>): Promise<string> {
  const readme = readFileSync(join(EXAMPLES, folder, "README.md"), "utf8");
  const commands = new RegExp(`^## ${heading}$[^#]*?^\`\`\`sh\n(.*?)^\`\`\``, "ms").exec(readme)?.[1];
  if (commands === undefined) throw new Error(`examples/${folder}/README.md has no commands under "${heading}"`);
  mkdirSync(CARGO_TARGET_DIR, { recursive: true });
  const shell = spawn("bash", ["-euo", "pipefail", "-c", commands], {
    cwd: join(EXAMPLES, folder),
    env: { ...process.env, CARGO_TARGET_DIR, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [output, errors] = await Promise.all([text(shell.stdout), text(shell.stderr), once(shell, "close")]);
  if (shell.exitCode !== 0) throw new Error(`${commands}ended with ${shell.exitCode}:\n${output}${errors}`);
  return output;
}
