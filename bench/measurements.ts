import type { ChildProcess } from "node:child_process";
import type { BenchRedis, RedisTraffic, Target } from "./bench-targets.ts";
import type { LoadCommand, LoadFailure, LoadResult } from "./load-commands.ts";
import { cpuTimeMs, residentBytes } from "./processes.ts";
import { median, percentile } from "./statistics.ts";
import { MODEL_NAMES } from "./workload.ts";

/** What a burst of load on one target came to. */
export interface LoadMeasurement {
  readonly turnsPerSecond: number;
  /** NaN of unary calls. */
  readonly firstTextMedianMs: number;
  readonly firstTextP95Ms: number;
  /** Processor time of the server's process, all threads. */
  readonly cpuMsPerTurn: number;
  /** Cores that the server kept busy: near 1 it was the bottleneck, well below 1 something else was. */
  readonly cpuCores: number;
}

/** The three kinds of load, as they stand in the table. */
export const LOADS = {
  unary: { rpc: "Chat", model: MODEL_NAMES.burst },
  burst: { rpc: "StreamChat", model: MODEL_NAMES.burst },
  paced: { rpc: "StreamChat", model: MODEL_NAMES.paced },
} as const;

export type LoadKind = keyof typeof LOADS;

const CLIENTS = 64;

/** Sends one command to the load client; rejects with what it says went wrong. */
export function order(client: ChildProcess, command: LoadCommand): Promise<LoadResult> {
  return new Promise((resolve, reject) => {
    const onExit = () => reject(new Error("the load client ended"));
    client.once("exit", onExit);
    client.once("message", (answer: LoadResult | LoadFailure) => {
      client.off("exit", onExit);
      if ("failure" in answer)
        reject(new Error(`${command.kind} of ${JSON.stringify(short(command))}: ${answer.failure}`));
      else resolve(answer);
    });
    client.send(command);
  });
}

function short(command: LoadCommand): object {
  return "sessionIds" in command ? { ...command, sessionIds: command.sessionIds.length } : command;
}

export async function measureLoad(
  client: ChildProcess,
  target: Target,
  { kind, durationMs, sessionIds }: { kind: LoadKind; durationMs: number; sessionIds: readonly string[] },
): Promise<LoadMeasurement> {
  const cpuBefore = cpuTimeMs(target.pid);
  const startTime = performance.now();
  const { baseUrl } = target;
  const result = await order(client, {
    kind: "load",
    baseUrl,
    ...LOADS[kind],
    clients: CLIENTS,
    durationMs,
    sessionIds,
  });
  const cpuMs = cpuTimeMs(target.pid) - cpuBefore;
  return {
    turnsPerSecond: (result.turnsInTime * 1_000) / durationMs,
    firstTextMedianMs: percentile(result.firstTextMs, 0.5),
    firstTextP95Ms: percentile(result.firstTextMs, 0.95),
    cpuMsPerTurn: cpuMs / result.turns,
    cpuCores: cpuMs / (performance.now() - startTime),
  };
}

/** Ratio of one figure between two targets, round by round: what the machine did to both of a round cancels out. */
export function ratiosOf(
  figure: keyof LoadMeasurement,
  { parley, bare }: { parley: readonly LoadMeasurement[]; bare: readonly LoadMeasurement[] },
): { median: number; lowest: number; highest: number } {
  const ratios = parley.map((measured, round) => measured[figure] / (bare[round]?.[figure] ?? Number.NaN));
  return { median: median(ratios), lowest: Math.min(...ratios), highest: Math.max(...ratios) };
}

/** Resident bytes for each idle stream, at each of the counts: a stream that had its first text and waits for more. */
export async function measureIdleStreams(
  client: ChildProcess,
  target: Target,
  {
    counts,
    sessionIds,
    release,
  }: { counts: readonly number[]; sessionIds: readonly string[]; release: () => Promise<void> },
): Promise<Map<number, number>> {
  const { baseUrl } = target;
  const bytesPerStream = new Map<number, number>();
  await settled(target.pid);
  const before = residentBytes(target.pid);
  let open = 0;
  for (const count of counts) {
    await order(client, { kind: "open", baseUrl, streams: count - open, sessionIds });
    open = count;
    await settled(target.pid);
    bytesPerStream.set(count, (residentBytes(target.pid) - before) / count);
  }
  await release();
  await order(client, { kind: "drain" });
  return bytesPerStream;
}

/** Waits until the process has nothing left to do: less than a tenth of a core over half a second, ten seconds at most. */
async function settled(pid: number): Promise<void> {
  for (let look = 0; look < 20; look++) {
    const before = cpuTimeMs(pid);
    await new Promise((resolve) => setTimeout(resolve, 500));
    if (cpuTimeMs(pid) - before < 50) return;
  }
}

const TURNS_FOR_TRAFFIC = 100;

/** What a turn asks of Redis, on sessions of about so many messages. */
export async function measureRedisTraffic(
  client: ChildProcess,
  target: Target,
  { redis, messages }: { redis: BenchRedis; messages: number },
): Promise<RedisTraffic> {
  const { baseUrl } = target;
  // Young sessions get one turn each, so that they stay young; to the oldest a few turns more are nothing.
  const sessions = messages > 10 * TURNS_FOR_TRAFFIC ? 1 : TURNS_FOR_TRAFFIC;
  const { sessionIds } = await order(client, { kind: "fill", baseUrl, sessions, turns: messages / 2 });
  const before = await redis.traffic();
  await order(client, { kind: "turns", baseUrl, sessionIds, turns: TURNS_FOR_TRAFFIC });
  const after = await redis.traffic();
  return {
    bytes: (after.bytes - before.bytes) / TURNS_FOR_TRAFFIC,
    roundTrips: (after.roundTrips - before.roundTrips) / TURNS_FOR_TRAFFIC,
  };
}

/** What readers of turns of another replica get, beside what the turns' own callers get. */
export interface ReadersMeasurement {
  /** Median time to a resumed turn's first event, of the median time to a new turn's first event; both on an idle machine. */
  readonly resumeLatency: number;
  /** Events per second that reach readers elsewhere, of those that callers get where nobody else reads; by readers per turn. */
  readonly events: ReadonlyMap<number, number>;
}

const RESUMED_TURNS = 100;

/** @param release Ends the model's replies that are held. */
export async function measureReaders(
  client: ChildProcess,
  { owner, elsewhere }: { owner: Target; elsewhere: Target },
  {
    sessionIds,
    durationMs,
    counts,
    release,
  }: { sessionIds: readonly string[]; durationMs: number; counts: readonly number[]; release: () => Promise<void> },
): Promise<ReadersMeasurement> {
  const begun = await order(client, { kind: "turns", baseUrl: owner.baseUrl, sessionIds, turns: RESUMED_TURNS });
  await order(client, { kind: "open", baseUrl: owner.baseUrl, streams: RESUMED_TURNS, sessionIds });
  const resumed = await order(client, { kind: "follow", baseUrl: elsewhere.baseUrl, turns: RESUMED_TURNS });
  await release();
  await order(client, { kind: "drain" });

  const load = async (perTurn: number): Promise<number> => {
    const result = await order(client, {
      kind: "load",
      baseUrl: owner.baseUrl,
      ...LOADS.burst,
      clients: CLIENTS,
      durationMs,
      sessionIds,
      ...(perTurn === 0 ? {} : { readers: { baseUrl: elsewhere.baseUrl, perTurn } }),
    });
    return result.events;
  };
  const events = new Map<number, number>();
  for (const count of counts) {
    const own = await load(0);
    events.set(count, (await load(count)) / own);
  }
  return { resumeLatency: percentile(resumed.firstEventMs, 0.5) / percentile(begun.firstEventMs, 0.5), events };
}

/** What a turn costs with accounts, of what it costs without. */
export interface AccountsMeasurement {
  /** Processor time of the server per turn. */
  readonly cpu: number;
  /** Turns per second without accounts, of those with them. */
  readonly throughput: number;
}

/** Medians of the rounds' ratios, by the kind of load. */
export async function measureAccounts(
  client: ChildProcess,
  { accounted, unaccounted }: { accounted: Target; unaccounted: Target },
  { sessionIds, durationMs, rounds }: { sessionIds: readonly string[]; durationMs: number; rounds: number },
): Promise<Map<LoadKind, AccountsMeasurement>> {
  const ratios = new Map<LoadKind, AccountsMeasurement[]>();
  // Round 0 warms both up and counts for nothing.
  for (let round = 0; round <= rounds; round++) {
    for (const kind of Object.keys(LOADS) as LoadKind[]) {
      const without = await measureLoad(client, unaccounted, { kind, durationMs, sessionIds });
      const withAccounts = await measureLoad(client, accounted, { kind, durationMs, sessionIds });
      if (round === 0) continue;
      const ratio = {
        cpu: withAccounts.cpuMsPerTurn / without.cpuMsPerTurn,
        throughput: without.turnsPerSecond / withAccounts.turnsPerSecond,
      };
      ratios.set(kind, [...(ratios.get(kind) ?? []), ratio]);
    }
  }
  const medianOf = (all: readonly AccountsMeasurement[], figure: keyof AccountsMeasurement): number =>
    median(all.map((one) => one[figure]));
  return new Map(
    [...ratios].map(([kind, all]) => [kind, { cpu: medianOf(all, "cpu"), throughput: medianOf(all, "throughput") }]),
  );
}
