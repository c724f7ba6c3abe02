import { execFile } from "node:child_process";
import { access, mkdir, rename, rm } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/** Where tools are kept between runs and checkouts: building one takes minutes. */
export const TOOL_CACHE = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "parley");

/** A program of a Go module, pinned. */
export interface GoTool {
  readonly name: string;
  /** Its package, such as `helm.sh/helm/v4/cmd/helm`. */
  readonly package: string;
  readonly version: string;
}

/** The path of the tool's binary, which is built first where it is missing. */
export async function goTool({ name, package: path, version }: GoTool): Promise<string> {
  const folder = join(TOOL_CACHE, name, version);
  const binary = join(folder, name);
  if (await exists(binary)) return binary;
  // Several processes may build at a time; each renames what it has built, and the last one wins.
  const building = `${folder}.${process.pid}.${crypto.randomUUID()}`;
  await mkdir(building, { recursive: true });
  try {
    await run("go", ["install", `${path}@${version}`], { env: { ...process.env, GOBIN: building, CGO_ENABLED: "0" } });
    await mkdir(folder, { recursive: true });
    await rename(join(building, name), binary);
  } finally {
    await rm(building, { recursive: true, force: true });
  }
  return binary;
}

/** The folder of a Go module's files, which are fetched first where they are missing. Read only. */
export async function goModuleFolder(module: string, version: string): Promise<string> {
  // Outside the checkout: no go.mod has a word in it.
  const { stdout } = await run("go", ["mod", "download", "-json", `${module}@${version}`], { cwd: tmpdir() });
  return (JSON.parse(stdout) as { Dir: string }).Dir;
}

export async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
