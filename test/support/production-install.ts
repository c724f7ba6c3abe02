import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";

// Installs what the container's last stage has, without the dev dependencies, in an empty folder, and starts the
// production entry there: it must come to the point where only REDIS_URL is missing, and serve with it.
const project = join(import.meta.dirname, "../..");
const folder = await mkdtemp(join(tmpdir(), "parley-production-"));
try {
  for (const part of ["package.json", "package-lock.json", "gen", "src", "sidecar"]) {
    await cp(join(project, part), join(folder, part), { recursive: true });
  }
  await promisify(execFile)("npm", ["install", "--omit=dev", "--no-save", "--no-audit", "--no-fund"], {
    cwd: folder,
    timeout: 300_000,
  });
  const env = {
    PATH: process.env.PATH,
    PORT: "0",
    OPS_PORT: "0",
    REDIS_URL: "redis://127.0.0.1:1",
    OPENAI_BASE_URL: "http://127.0.0.1:1",
  };
  const child = spawn(process.execPath, [join(folder, "src/main.ts")], { env, stdio: ["ignore", "pipe", "inherit"] });
  const timer = setTimeout(() => child.kill("SIGKILL"), 60_000);
  let serving = false;
  for await (const line of createInterface({ input: child.stdout })) {
    if (!serving && line.includes('"serving"')) {
      serving = true;
      child.kill("SIGTERM");
    }
  }
  if (child.exitCode === null) await once(child, "exit");
  clearTimeout(timer);
  if (!serving || child.exitCode !== 0) throw new Error(`did not serve and stop (exit code ${child.exitCode})`);
} finally {
  await rm(folder, { recursive: true, force: true });
}
