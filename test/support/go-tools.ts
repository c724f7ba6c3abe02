import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { access, mkdir, readFile, rename, rm } from "node:fs/promises";
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
export function goTool({ name, package: path, version }: GoTool): Promise<string> {
  return cached(name, version, async (folder) => {
    await run("go", ["install", `${path}@${version}`], { env: { ...process.env, GOBIN: folder, CGO_ENABLED: "0" } });
  });
}

/** The path of the binary of a Go program of ours, which is built first where it, or what it is built from, is new. */
export async function goProgram({ name, folder, ldflags }: { name: string; folder: string; ldflags: string }) {
  const sources = await Promise.all(["go.mod", "go.sum", "main.go"].map((file) => readFile(join(folder, file))));
  const digest = createHash("sha256").update(Buffer.concat(sources)).update(ldflags).digest("hex").slice(0, 16);
  return cached(name, digest, async (building) => {
    const args = ["build", "-trimpath", "-ldflags", ldflags, "-o", join(building, name), "."];
    await run("go", args, { cwd: folder, env: { ...process.env, CGO_ENABLED: "0" }, maxBuffer: 64 * 1024 * 1024 });
  });
}

/** `<cache>/<name>/<version>/<name>`, which `build` makes in the folder that it is given, where it is missing. */
export async function cached(
  name: string,
  version: string,
  build: (folder: string) => Promise<void>,
  file = name,
): Promise<string> {
  const folder = join(TOOL_CACHE, name, version);
  const binary = join(folder, file);
  if (await exists(binary)) return binary;
  // Several processes may build at a time; each renames what it has built, and the first one wins.
  const building = `${folder}.${process.pid}.${crypto.randomUUID()}`;
  await mkdir(building, { recursive: true });
  try {
    await build(building);
    await rename(building, folder).catch(async (error: unknown) => {
      if (!(await exists(binary))) throw error;
    });
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
