import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { promisify } from "node:util";
import { Miniflare } from "miniflare";
import deployed from "../../wrangler.json" with { type: "json" };

/** The edge entry as an operator deploys it: one module. */
export interface EdgeBundle {
  readonly folder: string;
  remove(): Promise<void>;
}

/** Bundles it, as `npm run build:edge` does. */
export async function buildEdge(): Promise<EdgeBundle> {
  const folder = await mkdtemp(join(tmpdir(), "parley-edge-"));
  await promisify(execFile)(process.execPath, ["standalone/build-edge.ts", join(folder, MODULE)]);
  return { folder, remove: () => rm(folder, { recursive: true, force: true }) };
}

/** The edge entry in a real workerd. */
export interface EdgeWorker {
  /** `http://127.0.0.1:<port>` */
  readonly url: string;
  /** Log lines so far. */
  logs(): Readonly<Record<string, unknown>>[];
  stop(): Promise<void>;
}

/** Starts it with an operator's bindings: variables as `src/config.ts` knows them. */
export async function startWorker(
  { folder }: Pick<EdgeBundle, "folder">,
  bindings: Readonly<Record<string, string>>,
): Promise<EdgeWorker> {
  let output = "";
  const gather = (stream: Readable): void => {
    stream.setEncoding("utf8").on("data", (chunk: string) => {
      output += chunk;
    });
  };
  const worker = new Miniflare({
    modules: [{ type: "ESModule", path: join(folder, MODULE) }],
    modulesRoot: folder,
    compatibilityDate: deployed.compatibility_date,
    compatibilityFlags: deployed.compatibility_flags,
    bindings: { ...bindings },
    host: "127.0.0.1",
    port: 0,
    handleRuntimeStdio(stdout: Readable, stderr: Readable) {
      gather(stdout);
      gather(stderr);
    },
  });
  return {
    url: (await worker.ready).origin,
    logs: () =>
      output
        .split("\n")
        .slice(0, -1)
        .flatMap((line) => (line.startsWith("{") ? [JSON.parse(line) as Record<string, unknown>] : [])),
    stop: () => worker.dispose(),
  };
}

const MODULE = "edge.js";
