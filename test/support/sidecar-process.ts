import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";

const entry = join(import.meta.dirname, "../../sidecar/main.ts");

/** A sidecar as its own process, on ports that are free. */
export interface SidecarProcess {
  readonly child: ChildProcess;
  readonly url: string;
  readonly opsUrl: string;
}

export function spawnSidecar(env: Readonly<Record<string, string>>): ChildProcess {
  return spawn(process.execPath, [entry], {
    env: { PATH: process.env.PATH, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
}

/** Resolves when it serves. */
export async function startSidecarProcess(env: Readonly<Record<string, string>>): Promise<SidecarProcess> {
  const child = spawnSidecar({ USAGE_PORT: "0", USAGE_OPS_PORT: "0", ...env });
  child.stderr?.resume();
  return { child, ...(await addressesOf(child)) };
}

/** Where a sidecar serves, as it says once it does. Its output is read on, so that it never waits for a reader. */
function addressesOf({ stdout }: ChildProcess): Promise<{ url: string; opsUrl: string }> {
  return new Promise((resolve, reject) => {
    const lines = createInterface({ input: stdout ?? process.stdin });
    lines.on("line", (line) => {
      const { url, ops_url: opsUrl } = JSON.parse(line) as { url?: string; ops_url?: string };
      if (url !== undefined && opsUrl !== undefined) resolve({ url, opsUrl });
    });
    lines.on("close", () => reject(new Error("the sidecar ended before it served")));
  });
}
