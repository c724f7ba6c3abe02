import { execFile } from "node:child_process";
import { access, mkdir, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

/** The newest release when this was written; pinned, so that what it does not change under the tests. */
const VERSION = "3.57.0";

/** Where the package is kept between runs and checkouts. */
const CACHE = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "parley/openai-python", VERSION);

/**
 * The folder of PyPI's `openai` package and all that it needs, for PYTHONPATH; it is installed first where it is missing.
 * `make test` runs this file to have it installed before a test waits for it.
 */
export async function openAiPythonPath(): Promise<string> {
  if (await exists(CACHE)) return CACHE;
  // Several workers may install at a time; each renames what it has installed, and the first one wins.
  const folder = `${CACHE}.${process.pid}.${crypto.randomUUID()}`;
  await mkdir(folder, { recursive: true });
  try {
    const run = promisify(execFile);
    await run("python3", ["-m", "venv", join(folder, "venv")]);
    const pip = join(folder, "venv/bin/pip");
    await run(pip, ["install", "--quiet", "--target", join(folder, "packages"), `openai==${VERSION}`]);
    await rename(join(folder, "packages"), CACHE).catch(async (error: unknown) => {
      if (!(await exists(CACHE))) throw error;
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  return CACHE;
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

if (import.meta.main) await openAiPythonPath();
