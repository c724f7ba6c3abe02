import type { ChildProcess } from "node:child_process";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { Target } from "./bench-targets.ts";
import { measureLoad } from "./measurements.ts";
import { type BenchProcess, freePort, startProgram } from "./processes.ts";
import { median } from "./statistics.ts";

/** What the sidecar does beside a service at full load. */
export interface SidecarMeasurement {
  /** Rows per second that one sidecar applies of a ledger that nobody has read, while nothing else happens. */
  readonly rowsPerSecond: number;
  /** Age of the oldest row that is not applied, at full load, in seconds: median and most of what was sampled. */
  readonly lagSeconds: { readonly median: number; readonly most: number };
  /** Streams per second of the service beside it, of those without it. */
  readonly streamsBeside: number;
}

const SAMPLE_MS = 250;
const CATCH_UP_MS = 120_000;

/** @param parley A service whose ledger no sidecar has read yet. */
export async function measureSidecar(
  client: ChildProcess,
  parley: Target,
  {
    directory,
    redisUrl,
    sessionIds,
    durationMs,
  }: { directory: string; redisUrl: string; sessionIds: readonly string[]; durationMs: number },
): Promise<SidecarMeasurement> {
  const load = { kind: "burst", durationMs, sessionIds } as const;
  const alone = await measureLoad(client, parley, load);
  const sidecar = await startSidecar({ directory, redisUrl });
  try {
    const startTime = performance.now();
    await caughtUp(sidecar);
    const rowsPerSecond =
      ((await metric(sidecar, "parley_ledger_rows_applied_total")) * 1_000) / (performance.now() - startTime);

    const lags: number[] = [];
    const sampling = new AbortController();
    const sampler = sample(sidecar, { into: lags, signal: sampling.signal });
    const beside = await measureLoad(client, parley, load);
    sampling.abort();
    await sampler;
    return {
      rowsPerSecond,
      lagSeconds: { median: median(lags), most: Math.max(...lags) },
      streamsBeside: beside.turnsPerSecond / alone.turnsPerSecond,
    };
  } finally {
    await sidecar.stop();
  }
}

interface SidecarProcess extends BenchProcess {
  readonly opsUrl: string;
}

async function startSidecar({ directory, redisUrl }: { directory: string; redisUrl: string }): Promise<SidecarProcess> {
  const [port, opsPort] = [await freePort(), await freePort()];
  const opsUrl = `http://127.0.0.1:${opsPort}`;
  const entry = fileURLToPath(new URL("../sidecar/main.ts", import.meta.url));
  const sidecar = await startProgram(process.execPath, [entry], {
    outputFile: join(directory, "sidecar.log"),
    env: { ...process.env, USAGE_PORT: String(port), USAGE_OPS_PORT: String(opsPort), REDIS_URL: redisUrl },
    isReady: async () => (await fetch(`${opsUrl}/readyz`)).ok,
  });
  return { ...sidecar, opsUrl };
}

async function metric({ opsUrl }: SidecarProcess, name: string): Promise<number> {
  const text = await (await fetch(`${opsUrl}/metrics`)).text();
  const value = new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, "m").exec(text)?.[1];
  if (value === undefined) throw new Error(`the sidecar has no metric ${name}`);
  return Number(value);
}

/** Resolves when the rollups have all that the ledger has: nothing is new between two looks. */
async function caughtUp(sidecar: SidecarProcess): Promise<void> {
  const deadline = performance.now() + CATCH_UP_MS;
  for (let applied = -1; performance.now() < deadline; await delay(SAMPLE_MS)) {
    const now = await metric(sidecar, "parley_ledger_rows_applied_total");
    if (now === applied && now > 0 && (await metric(sidecar, "parley_ledger_lag_seconds")) === 0) return;
    applied = now;
  }
  throw new Error(`the sidecar had not caught up after ${CATCH_UP_MS} ms`);
}

async function sample(
  sidecar: SidecarProcess,
  { into, signal }: { into: number[]; signal: AbortSignal },
): Promise<void> {
  while (!signal.aborted) {
    into.push(await metric(sidecar, "parley_ledger_lag_seconds"));
    await delay(SAMPLE_MS);
  }
}
