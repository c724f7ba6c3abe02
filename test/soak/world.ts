import { rmSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type SimulatedCall, type SimulatedModel, startSimulatedModel } from "../../src/providers/simulated-model.ts";
import { connectRedis, type RedisConnection } from "../../src/store/redis-connection.ts";
import { createRedisStore } from "../../src/store/redis-store.ts";
import type { Store } from "../../src/turns/ports.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { type ServiceProcess, startServiceProcess } from "../support/service-process.ts";
import type { Defect } from "./faulty-stores.ts";
import { type RecordLine, readRecord } from "./record.ts";
import { LEASE_MS, REPLICAS } from "./schedule.ts";

/** Turns are handed over after this long when their replica is told to go, in milliseconds. */
const DRAIN_MS = 300;

/** One replica at least serves again after this long, in milliseconds. */
const START_DEADLINE_MS = 30_000;

/** So much of a crashed replica's last words is shown, in characters. */
const SHOWN = 2_000;

/** Pause between two words of the agent that ends a conversation, in milliseconds. */
const WORD_MS = 4;

/** What each use case may spend in an hour, in tokens; most turns of the soak have none. */
export const CAP_TOKENS = 4_000;

/** Two agents: the first calls both tools and goes on, the second ends the conversation. Three model calls a turn. */
const PARLEY_YAML = JSON.stringify({
  agents: {
    quick: { model: "sim-tools-8x15", tools: ["once", "again"] },
    steady: { model: "sim-tools-12x35", tools: ["again", "once"] },
    closer: { model: "sim-terminate" },
  },
  teams: {
    fast: { kind: "round_robin", agents: ["quick", "closer"] },
    slow: { kind: "round_robin", agents: ["steady", "closer"] },
  },
  default_team: "fast",
  models: Object.fromEntries(
    ["sim-tools-8x15", "sim-tools-12x35", "sim-terminate"].map((model) => [
      model,
      { context_window_tokens: 1_000_000, endpoints: [{}] },
    ]),
  ),
  // Those who spend; a call holds nearly all of it.
  budgets: [{ scope: "use_case", id: "*", period: "hour", limit_tokens: CAP_TOKENS }],
  // Killing replicas says nothing about a model.
  breaker: { min_calls: 1_000_000 },
});

/** A call of a model, and which replica made it. */
export interface ReplicaCall extends SimulatedCall {
  readonly replica: number;
}

/** Replicas of the service on one Redis that keeps what it has acknowledged, with a model for each. */
export interface World {
  readonly redis: RedisServer;
  /** A store on the same Redis, of a process that nothing happens to. */
  readonly store: Store;
  readonly connection: RedisConnection;
  /** The replica of this number, or the next one that runs. */
  replica(number: number): Promise<ServiceProcess>;
  /** Kills a replica, and starts another in its place; resolves when that serves. False: it did not run. */
  kill(number: number): Promise<boolean>;
  /** Tells a replica to go, and starts another in its place. */
  drain(number: number): Promise<boolean>;
  /** Lets a replica stand still for a while. */
  pause(number: number, forMs: number): Promise<boolean>;
  restartRedis(): Promise<void>;
  pauseRedis(forMs: number): Promise<void>;
  /** All calls of models so far that are still known. */
  calls(): ReplicaCall[];
  record(): RecordLine[];
  /** How replicas ended that nobody ended, since this was asked last. */
  crashes(): string[];
  /** Kills all that runs and removes what was written. */
  close(): Promise<void>;
}

export async function startWorld({ defect }: { defect?: Defect | undefined } = {}): Promise<World> {
  const closers: (() => Promise<unknown>)[] = [];
  const close = async (): Promise<void> => {
    for (const closer of closers.splice(0).reverse()) await closer();
  };
  try {
    const folder = await mkdtemp(join(tmpdir(), "parley-soak-"));
    closers.push(() => rm(folder, { recursive: true, force: true }));
    const [yaml, record] = [join(folder, "parley.yaml"), join(folder, "record.jsonl")];
    await writeFile(yaml, PARLEY_YAML);
    const redis = await startRedisServer({ appendOnly: true });
    closers.push(() => redis.stop());
    const connection = connectRedis(redis.url);
    const store = createRedisStore({ connection, ttlMs: 86_400_000, leaseMs: LEASE_MS });
    closers.push(() => store.close());
    const models: SimulatedModel[] = [];
    for (let number = 0; number < REPLICAS; number++) {
      const model = await startSimulatedModel({ chunkDelayMs: WORD_MS });
      closers.push(() => model.close());
      models.push(model);
    }
    const slots = models.map((model, replica) =>
      createSlot(() =>
        startServiceProcess({
          entry: "test/soak/replica.ts",
          env: {
            REDIS_URL: redis.url,
            OPENAI_BASE_URL: model.baseUrl,
            CONFIG_FILE: yaml,
            LEASE_MS: String(LEASE_MS),
            DRAIN_MS: String(DRAIN_MS),
            MAX_TOKENS: "1000000",
            SOAK_RECORD: record,
            SOAK_REPLICA: String(replica),
            ...(defect === undefined ? {} : { SOAK_DEFECT: defect }),
          },
        }),
      ),
    );
    closers.push(() => Promise.all(slots.map((slot) => slot.close())));
    const removeFolder = (): void => rmSync(folder, { recursive: true, force: true });
    process.once("exit", removeFolder);
    closers.push(async () => void process.off("exit", removeFolder));
    await Promise.all(slots.map((slot) => slot.start()));
    // One thing at a time: a server that is just starting is not killed.
    let redisIsBusy = Promise.resolve();
    const onRedis = (happens: () => Promise<void>): Promise<void> => {
      redisIsBusy = redisIsBusy.then(happens);
      return redisIsBusy;
    };
    const slotOf = (number: number): Slot => slots[number % slots.length] as Slot;
    return {
      redis,
      store,
      connection,
      async replica(number) {
        const untilMs = performance.now() + START_DEADLINE_MS;
        for (;;) {
          for (let next = 0; next < slots.length; next++) {
            const { service } = slotOf(number + next);
            if (service !== undefined) return service;
          }
          if (performance.now() > untilMs) throw new Error("no replica runs");
          await pauseFor(20);
        }
      },
      kill: (number) => slotOf(number).replace((service) => service.kill()),
      drain: (number) =>
        slotOf(number).replace(async (service) => {
          service.send("SIGTERM");
          await service.ended;
        }),
      pause: (number, forMs) => slotOf(number).pause(forMs),
      restartRedis: () => onRedis(() => redis.restart()),
      pauseRedis: (forMs) =>
        onRedis(async () => {
          redis.pause(true);
          await pauseFor(forMs);
          redis.pause(false);
        }),
      calls: () => models.flatMap(({ calls }, replica) => calls.map((call) => ({ ...call, replica }))),
      record: () => readRecord(record),
      crashes: () => slots.flatMap((slot) => slot.crashes.splice(0)),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** The place of a replica: one process after the other. */
interface Slot {
  readonly service: ServiceProcess | undefined;
  readonly crashes: string[];
  start(): Promise<void>;
  replace(end: (service: ServiceProcess) => Promise<void>): Promise<boolean>;
  pause(forMs: number): Promise<boolean>;
  close(): Promise<void>;
}

function createSlot(startService: () => Promise<ServiceProcess>): Slot {
  let service: ServiceProcess | undefined;
  let starting: Promise<void> | undefined;
  let closed = false;
  /** The service, and those that are being replaced. */
  const running = new Set<ServiceProcess>();
  const crashes: string[] = [];
  const start = async (): Promise<void> => {
    const started = await startService();
    running.add(started);
    if (!closed) service = started;
    void started.ended.then(({ code, signal }) => {
      running.delete(started);
      if (service !== started || closed) return;
      service = undefined;
      crashes.push(
        `a replica ended with ${code ?? signal}: ${started.errorOutput() || started.output().slice(-SHOWN)}`,
      );
      starting = start();
      starting.catch(() => undefined);
    });
  };
  return {
    get service() {
      return service;
    },
    crashes,
    async start() {
      starting = start();
      await starting;
    },
    async replace(end) {
      const replaced = service;
      if (replaced === undefined) return false;
      service = undefined;
      await end(replaced);
      if (closed) return true;
      starting = start();
      await starting;
      return true;
    },
    async pause(forMs) {
      const paused = service;
      if (paused === undefined) return false;
      paused.send("SIGSTOP");
      await pauseFor(forMs);
      paused.send("SIGCONT");
      return true;
    },
    async close() {
      closed = true;
      await starting?.catch(() => undefined);
      await Promise.all([...running].map((started) => started.kill()));
    },
  };
}

export function pauseFor(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)));
}
