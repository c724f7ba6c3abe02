import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { afterAll, beforeAll, onTestFinished } from "vitest";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import { type SimulatedModel, startSimulatedModel } from "../../src/providers/simulated-model.ts";
import { connectRedis } from "../../src/store/redis-connection.ts";
import { createRedisStore } from "../../src/store/redis-store.ts";
import { parseTurnId } from "../../src/turns/turn-id.ts";
import { type RedisServer, type RedisServerOptions, startRedisServer } from "../support/redis-server.ts";
import { type ServiceProcess, type ServiceProcessOptions, startServiceProcess } from "../support/service-process.ts";
import { singleTeams } from "../support/single-teams.ts";

/** Agent teams, each named for how long its reply takes. */
const TEAMS = {
  /** Repeats what it is told, at once. */
  quick: "gpt-4o",
  /** 50 pieces, about a second and a half. */
  slow: "sim-50x30",
  /** 20 pieces, about three seconds. */
  paced: "sim-20x150",
  /** Pieces for as long as any test lasts. */
  endless: "sim-5000x30",
  /** Never says a word. */
  silent: "sim-stall",
  /** Stops amid its reply, for ever. */
  stuck: "sim-stall-midway",
} as const;

/** Agents that call tools of `test/support/replica.ts`, each before it says three pieces, and again three. */
const TOOL_USERS = ["pay", "look_up", "wait", "pay_and_die", "look_up_and_die"] as const;

/** All pieces of a reply of the team `slow`, put together. */
export const SLOW_REPLY = Array.from({ length: 50 }, (_, index) => `piece ${index} `).join("");

/** All pieces of a reply of the team `paced`. */
export const PACED_REPLY = Array.from({ length: 20 }, (_, index) => `piece ${index} `).join("");

/** What a test with real processes has; all of it is gone when the test has ended. */
export interface Parts {
  readonly redis: RedisServer;
  readonly model: SimulatedModel;
  /** Starts a service of these parts, with the agent teams above; `quick` is the default. */
  startService(
    env?: Readonly<Record<string, string>>,
    options?: Omit<ServiceProcessOptions, "env">,
  ): Promise<ServiceProcess>;
  /** Two of them. */
  startTwo(env?: Readonly<Record<string, string>>): Promise<[ServiceProcess, ServiceProcess]>;
  /**
   * Starts a service of `test/support/replica.ts`. It has also the teams `pay`, `look_up`, `wait`, `pay_and_die` and
   * `look_up_and_die`: an agent that calls the tool of that name amid what it says, and one that ends the conversation.
   */
  startReplica(env?: Readonly<Record<string, string>>): Promise<ServiceProcess>;
  /** Calls of the replicas' tools so far, `<tool> <call's id>`, in order; `stopped <id>`: one that was told to stop. */
  toolCalls(): Promise<string[]>;
  /** A turn's log as Redis has it. */
  logOf(turnId: string): Promise<TurnLogEntry[]>;
  /** Runs a command on the Redis. */
  ask<T>(question: (redis: Redis) => Promise<T>): Promise<T>;
}

/** Parts that the tests of a file share. */
export function shareParts(redisOptions?: RedisServerOptions): () => Parts {
  const cleanups: (() => unknown)[] = [];
  let parts: Parts | undefined;
  beforeAll(async () => {
    parts = await startParts(redisOptions, { onEnd: (cleanup) => void cleanups.push(cleanup) });
  });
  afterAll(async () => {
    // Services first: they are in need of the rest.
    await Promise.all(cleanups.splice(3).map((stop) => stop()));
    for (const stop of cleanups.toReversed()) await stop();
  });
  return () => {
    if (parts === undefined) throw new Error("the parts are there while tests run");
    return parts;
  };
}

/** Starts a Redis, by default one that keeps what it has acknowledged, and a model. */
export async function startParts(
  redisOptions: RedisServerOptions = { appendOnly: true },
  { onEnd = onTestFinished }: { onEnd?: (cleanup: () => Promise<void>) => void } = {},
): Promise<Parts> {
  const redis = await startRedisServer(redisOptions);
  onEnd(() => redis.stop());
  const model = await startSimulatedModel({ chunkDelayMs: 0 });
  onEnd(() => model.close());
  const folder = await mkdtemp(join(tmpdir(), "parley-app-"));
  onEnd(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, "parley.yaml");
  const toolFile = join(folder, "tool-calls.txt");
  const models = Object.entries(TEAMS).map(([name, model]) => [name, { model }] as const);
  const { agents, teams } = singleTeams(Object.fromEntries(models));
  await writeFile(file, JSON.stringify({ agents, teams, default_team: "quick" }));
  const replicaFile = join(folder, "replica.yaml");
  const users = Object.fromEntries(TOOL_USERS.map((name) => [name, { model: "sim-tools-3x20", tools: [name] }]));
  const userTeams = Object.fromEntries(
    TOOL_USERS.map((name) => [name, { kind: "round_robin", agents: [name, "closer"] }]),
  );
  const replicaParts = {
    agents: { ...agents, ...users, closer: { model: "sim-terminate" } },
    teams: { ...teams, ...userTeams },
    default_team: "quick",
  };
  await writeFile(replicaFile, JSON.stringify(replicaParts));
  const startService: Parts["startService"] = async (env = {}, options = {}) => {
    const service = await startServiceProcess({
      ...options,
      env: {
        REDIS_URL: redis.url,
        OPENAI_BASE_URL: model.baseUrl,
        CONFIG_FILE: file,
        // What a test leaves running does not hold it up.
        DRAIN_MS: "200",
        ...env,
      },
    });
    onEnd(() => service.stop());
    return service;
  };
  return {
    redis,
    model,
    startService,
    startTwo: (env) => Promise.all([startService(env), startService(env)]),
    startReplica: (env = {}) =>
      startService({ CONFIG_FILE: replicaFile, TOOL_FILE: toolFile, ...env }, { entry: "test/support/replica.ts" }),
    async toolCalls() {
      const text = await readFile(toolFile, "utf8").catch(() => "");
      return text.split("\n").slice(0, -1);
    },
    async ask(question) {
      const client = new Redis(redis.url);
      try {
        return await question(client);
      } finally {
        client.disconnect();
      }
    },
    async logOf(turnId) {
      const store = createRedisStore({ connection: connectRedis(redis.url), ttlMs: 3_600_000, leaseMs: 10_000 });
      try {
        const ref = parseTurnId(turnId);
        return (ref && (await store.readLog(ref, 0n, 10_000))) ?? [];
      } finally {
        await store.close();
      }
    },
  };
}
