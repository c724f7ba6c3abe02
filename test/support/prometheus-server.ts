import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Serves `text()` as `/metrics` on a port of its own. */
export async function startExporter(text: () => string): Promise<{ readonly address: string; close(): Promise<void> }> {
  const server = createServer((_, response) => response.setHeader("content-type", "text/plain").end(text()));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { address: `127.0.0.1:${portOf(server)}`, close: () => closed(server) };
}

/** A real Prometheus with an empty store. */
export interface PrometheusServer {
  readonly url: string;
  /** Scrapes these from now on, instead of those so far. */
  retarget(targets: readonly string[]): Promise<void>;
  close(): Promise<void>;
}

/** A real Prometheus that scrapes the targets twice a second, with an empty store. `labels`: what each series gets. */
export async function startPrometheus(
  first: readonly string[],
  labels: Readonly<Record<string, string>> = {},
): Promise<PrometheusServer> {
  const folder = await mkdtemp(join(tmpdir(), "parley-prometheus-"));
  const config = {
    global: { scrape_interval: "500ms", scrape_timeout: "500ms" },
    scrape_configs: [
      { job_name: "parley", honor_labels: true, file_sd_configs: [{ files: [join(folder, "targets.json")] }] },
    ],
  };
  const retarget = async (targets: readonly string[]): Promise<void> => {
    // Prometheus reads the file at any time: it must not see half of it.
    await writeFile(join(folder, "targets.new"), JSON.stringify([{ targets, labels }]));
    await rename(join(folder, "targets.new"), join(folder, "targets.json"));
  };
  await retarget(first);
  // JSON is YAML.
  await writeFile(join(folder, "prometheus.yml"), JSON.stringify(config));
  const port = await freePort();
  const child = spawn(
    "prometheus",
    [
      `--config.file=${join(folder, "prometheus.yml")}`,
      `--storage.tsdb.path=${join(folder, "data")}`,
      `--web.listen-address=127.0.0.1:${port}`,
      "--log.level=error",
    ],
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  const url = `http://127.0.0.1:${port}`;
  const close = async (): Promise<void> => {
    child.kill("SIGTERM");
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
    await rm(folder, { recursive: true, force: true });
  };
  const deadline = Date.now() + 60_000;
  while (
    !(await fetch(`${url}/-/ready`).then(
      ({ ok }) => ok,
      () => false,
    ))
  ) {
    if (child.exitCode !== null || Date.now() > deadline) {
      await close();
      throw new Error("Prometheus does not get ready");
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return { url, retarget, close };
}

/** A port that was free a moment ago: Prometheus does not tell which one it took. */
async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const port = portOf(server);
  await closed(server);
  return port;
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}

async function closed(server: Server): Promise<void> {
  server.closeAllConnections();
  await new Promise<void>((resolve) => server.close(() => resolve()));
}
