import { parseArgs } from "node:util";
import {
  makeWorkDirectory,
  type RedisTraffic,
  startBare,
  startParley,
  startRedis,
  type Target,
} from "./bench-targets.ts";
import {
  LOADS,
  type LoadKind,
  type LoadMeasurement,
  measureAccounts,
  measureIdleStreams,
  measureLoad,
  measureReaders,
  measureRedisTraffic,
  order,
} from "./measurements.ts";
import { type BenchProcess, forkServer, openFilesLimit } from "./processes.ts";
import { type Measured, renderReport } from "./report.ts";
import { measureSidecar } from "./sidecar-measurements.ts";
import { WINDOW_MESSAGES } from "./workload.ts";

/**
 * `make bench`: Parley beside a bare connect-node handler around the openai SDK, in interleaved rounds against the same
 * model double, as ratios. README.md beside this file says what is measured and how.
 */

const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string" },
    seconds: { type: "string" },
    /** A look in passing: short rounds, fewer idle streams. */
    quick: { type: "boolean", default: false },
    /** Print what the ratios were made of, for those who profile. */
    absolute: { type: "boolean", default: false },
  },
});
const rounds = Number(flags.rounds ?? (flags.quick ? 2 : 3));
const durationMs = Number(flags.seconds ?? (flags.quick ? 3 : 8)) * 1_000;
const idleCounts = flags.quick ? [1_000] : [1_000, 10_000];
const oldSessionMessages = flags.quick ? 1_000 : 5_000;

/** Sessions that the clients go round: four for each of the 64, so that none is asked twice at once. */
const LOAD_SESSIONS = 256;

/** Readers of each turn on another replica. */
const READERS = [1, 10] as const;

const started: BenchProcess[] = [];

async function start<P extends BenchProcess>(starting: Promise<P>): Promise<P> {
  const process = await starting;
  started.push(process);
  return process;
}

async function stop(process: BenchProcess): Promise<void> {
  started.splice(started.indexOf(process), 1);
  await process.stop();
}

try {
  console.log(renderReport(await measureAll()));
} finally {
  for (const process of started.reverse()) await process.stop();
}

async function measureAll(): Promise<Measured> {
  const mostStreams = Math.max(...idleCounts);
  if (openFilesLimit() < mostStreams + 1_000) {
    throw new Error(`the bench needs ${mostStreams + 1_000} open files: raise it with \`ulimit -n\` first`);
  }
  const directory = makeWorkDirectory();
  const redis = await start(startRedis(directory));
  const double = await start(forkServer("model-double.ts"));
  const modelUrl = `http://127.0.0.1:${double.port}/v1`;
  const { child: client, ...clientProcess } = await forkServer("load-client.ts");
  started.push(clientProcess);
  const parleyOptions = { directory, redisUrl: redis.url, modelUrl };

  const targets: Target[] = [await start(startBare(modelUrl)), await start(startParley(parleyOptions))];
  say(`filling ${LOAD_SESSIONS} sessions`);
  const parley = named(targets, "parley");
  const turnsToFill = WINDOW_MESSAGES / 2;
  const fill = (sessions: number) =>
    order(client, { kind: "fill", baseUrl: parley.baseUrl, sessions, turns: turnsToFill }).then((it) => it.sessionIds);
  const sessionIds = await fill(LOAD_SESSIONS);
  const sessionsOf = (target: Target) => (target.name === "parley" ? sessionIds : []);

  const kinds = Object.keys(LOADS) as LoadKind[];
  const loads = emptyLoads();
  for (let round = 0; round <= rounds; round++) {
    // Round 0 warms both up and counts for nothing.
    for (const kind of kinds) {
      for (const target of targets) {
        const measured = await measureLoad(client, target, { kind, durationMs, sessionIds: sessionsOf(target) });
        if (round > 0) loads[kind][target.name].push(measured);
        if (flags.absolute) say(`round ${round}, ${kind}, ${target.name}: ${JSON.stringify(measured)}`);
      }
    }
    say(round === 0 ? "warm" : `round ${round} of ${rounds} done`);
  }

  const redisTraffic = new Map<number, RedisTraffic>();
  for (const messages of [WINDOW_MESSAGES, oldSessionMessages]) {
    say(`traffic of a turn on sessions of ${messages} messages`);
    redisTraffic.set(messages, await measureRedisTraffic(client, parley, { redis, messages }));
  }
  const callsBefore = await modelCalls(modelUrl);
  const { turns } = await order(client, { kind: "turns", baseUrl: parley.baseUrl, sessionIds, turns: 100 });
  const callsPerMessage = ((await modelCalls(modelUrl)) - callsBefore) / turns;

  say("readers on another replica");
  const elsewhere = await start(startParley({ ...parleyOptions, fileName: "elsewhere" }));
  const readers = await measureReaders(
    client,
    { owner: parley, elsewhere },
    { sessionIds, durationMs, counts: READERS, release: () => releaseHeld(modelUrl) },
  );
  await stop(elsewhere);

  say("the sidecar");
  const sidecar = await measureSidecar(client, parley, { directory, redisUrl: redis.url, sessionIds, durationMs });

  say("with accounts and without");
  const metered = { ...parleyOptions, budgets: true };
  const accounted = await start(startParley({ ...metered, fileName: "accounted" }));
  const unaccounted = await start(
    startParley({ ...metered, fileName: "unaccounted", entry: "bench/unaccounted-service.ts" }),
  );
  const accounts = await measureAccounts(client, { accounted, unaccounted }, { sessionIds, durationMs, rounds });
  for (const target of [accounted, unaccounted]) await stop(target);

  say(`filling ${mostStreams} sessions for idle streams`);
  const idleSessionIds = await fill(mostStreams);
  for (const target of targets) await stop(target);
  const idleBytes = { bare: new Map<number, number>(), parley: new Map<number, number>() };
  for (const startFresh of [() => startBare(modelUrl), () => startParley(parleyOptions)]) {
    // A fresh process: what the load before left in the heap is not what a stream costs.
    const target = await start(startFresh());
    say(`idle streams of ${target.name}`);
    // Enough to have its code loaded, too little to grow the heap.
    await order(client, { kind: "turns", baseUrl: target.baseUrl, sessionIds: sessionIds.slice(0, 20), turns: 20 });
    idleBytes[target.name] = await measureIdleStreams(client, target, {
      counts: idleCounts,
      sessionIds: target.name === "parley" ? idleSessionIds : [],
      release: () => releaseHeld(modelUrl),
    });
    await stop(target);
  }
  return { rounds, durationMs, loads, redisTraffic, readers, accounts, sidecar, callsPerMessage, idleBytes };
}

function emptyLoads(): Measured["loads"] {
  const empty = () => ({ bare: [] as LoadMeasurement[], parley: [] as LoadMeasurement[] });
  return { unary: empty(), burst: empty(), paced: empty() };
}

function named(targets: readonly Target[], name: Target["name"]): Target {
  const target = targets.find((one) => one.name === name);
  if (!target) throw new Error(`no ${name}`);
  return target;
}

/** Calls that the model double has had so far. */
async function modelCalls(modelUrl: string): Promise<number> {
  const response = await fetch(new URL("/bench/calls", modelUrl));
  return ((await response.json()) as { calls: number }).calls;
}

async function releaseHeld(modelUrl: string): Promise<void> {
  await fetch(new URL("/bench/release", modelUrl), { method: "POST" });
}

/** Progress goes to the error output: the standard output is the report alone. */
function say(sentence: string): void {
  console.error(`bench: ${sentence}`);
}
