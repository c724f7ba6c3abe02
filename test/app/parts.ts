import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import { type SimulatedModel, startSimulatedModel } from "../../src/providers/simulated-model.ts";
import { connectRedis } from "../../src/store/redis-connection.ts";
import { createRedisStore } from "../../src/store/redis-store.ts";
import { parseTurnId } from "../../src/turns/turn-id.ts";
import { type RedisServer, type RedisServerOptions, startRedisServer } from "../support/redis-server.ts";
import { type ServiceProcess, type ServiceProcessOptions, startServiceProcess } from "../support/service-process.ts";

/** Agent teams, each named for how long its reply takes. */
const TEAMS = {
  /** Repeats what it is told, at once. */
  quick: "gpt-4o",
  /** 50 pieces, about a second and a half. */
  slow: "sim-50x30",
  /** Pieces for as long as any test lasts. */
  endless: "sim-5000x30",
  /** Never says a word. */
  silent: "sim-stall",
} as const;

/** All pieces of a reply of the team `slow`, put together. */
export const SLOW_REPLY = Array.from({ length: 50 }, (_, index) => `piece ${index} `).join("");

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
  /** A turn's log as Redis has it. */
  logOf(turnId: string): Promise<TurnLogEntry[]>;
}

/** Starts a Redis, by default one that keeps what it has acknowledged, and a model. */
export async function startParts(redisOptions: RedisServerOptions = { appendOnly: true }): Promise<Parts> {
  const redis = await startRedisServer(redisOptions);
  onTestFinished(() => redis.stop());
  const model = await startSimulatedModel({ chunkDelayMs: 0 });
  onTestFinished(() => model.close());
  const folder = await mkdtemp(join(tmpdir(), "parley-app-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, "parley.yaml");
  const agents = Object.fromEntries(Object.entries(TEAMS).map(([name, of]) => [name, { model: of }]));
  const teams = Object.fromEntries(Object.keys(TEAMS).map((agent) => [agent, { agent }]));
  // JSON is YAML.
  await writeFile(file, JSON.stringify({ agents, teams, default_team: "quick" }));
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
    onTestFinished(() => service.stop());
    return service;
  };
  return {
    redis,
    model,
    startService,
    startTwo: (env) => Promise.all([startService(env), startService(env)]),
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
