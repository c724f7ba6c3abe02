import { makeWorkDirectory, startParley, startRedis } from "./bench-targets.ts";
import { measureLoad, order } from "./measurements.ts";
import { type BenchProcess, forkServer, residentBytes } from "./processes.ts";

// The numbers of docs/operations/scale.md: `node bench/sizing.ts`. What a pod's processor and memory, and Redis' memory, are
// needed for. Times are this machine's; the shape of the arithmetic is not.

const SESSIONS = 200;
/** Turns in each session: a user's message of 200 bytes and a reply of as many, each. */
const TURNS = 25;
const LOAD_MS = 8_000;

const started: BenchProcess[] = [];
const keep = <Process extends BenchProcess>(process: Process): Process => {
  started.push(process);
  return process;
};
try {
  const directory = makeWorkDirectory();
  const redis = keep(await startRedis(directory));
  const double = keep(await forkServer("model-double.ts"));
  const client = keep(await forkServer("load-client.ts"));
  const modelUrl = `http://127.0.0.1:${double.port}/v1`;
  const parley = keep(await startParley({ directory, redisUrl: redis.url, modelUrl, budgets: true }));
  const atRest = residentBytes(parley.pid);
  const empty = await redis.memoryBytes();
  const { sessionIds } = await order(client.child, {
    kind: "fill",
    baseUrl: parley.baseUrl,
    sessions: SESSIONS,
    turns: TURNS,
  });
  const filled = await redis.memoryBytes();
  const lines = [
    `a process at rest                         ${megabytes(atRest)} MB`,
    `Redis, a session of ${2 * TURNS} messages            ${Math.round((filled - empty) / SESSIONS / 1e3)} kB, its turns' logs and ledger rows included`,
  ];
  for (const kind of ["unary", "burst", "paced"] as const) {
    const { cpuMsPerTurn } = await measureLoad(client.child, parley, { kind, durationMs: LOAD_MS, sessionIds });
    lines.push(`processor time of a turn, ${kind.padEnd(6)}          ${cpuMsPerTurn.toFixed(2)} ms`);
  }
  lines.push(`the process after that                    ${megabytes(residentBytes(parley.pid))} MB`);
  process.stdout.write(`${lines.join("\n")}\n`);
} finally {
  for (const one of started.toReversed()) await one.stop();
}

function megabytes(bytes: number): number {
  return Math.round(bytes / 1e6);
}
