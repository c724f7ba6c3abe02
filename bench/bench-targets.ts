import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Redis } from "ioredis";
import { stringify } from "yaml";
import { type BenchProcess, forkServer, freePort, startProgram } from "./processes.ts";
import { MODEL_NAMES, WINDOW_MESSAGES } from "./workload.ts";

/** A server under measurement. */
export interface Target extends BenchProcess {
  readonly name: "bare" | "parley";
  readonly baseUrl: string;
}

/** What clients have had to do with a Redis so far, less what these questions cost. */
export interface RedisTraffic {
  /** Sent to it and got from it. */
  readonly bytes: number;
  /** Scripts that it ran: all that a turn asks of it. */
  readonly roundTrips: number;
}

/** A redis-server of the bench's own: append-only file on, as REDIS_DURABILITY=local wants it. */
export interface BenchRedis extends BenchProcess {
  readonly url: string;
  traffic(): Promise<RedisTraffic>;
  /** What its data takes, in bytes. */
  memoryBytes(): Promise<number>;
}

/** A directory for logs, the configuration and Redis' files; the system clears it away. */
export function makeWorkDirectory(): string {
  return mkdtempSync(join(tmpdir(), "parley-bench-"));
}

export async function startRedis(directory: string): Promise<BenchRedis> {
  const port = await freePort();
  const redis = new Redis({ host: "127.0.0.1", port, lazyConnect: true, retryStrategy: () => 50 });
  redis.on("error", () => {}); // Until it listens.
  const args = ["--port", String(port), "--bind", "127.0.0.1", "--dir", directory, "--appendonly", "yes", "--save", ""];
  const server = await startProgram("redis-server", args, {
    outputFile: join(directory, "redis.log"),
    isReady: async () => (await redis.ping()) === "PONG",
  });
  let own = 0;
  return {
    pid: server.pid,
    url: `redis://127.0.0.1:${port}`,
    async traffic() {
      const stats = await redis.info("stats");
      const bytes = infoField(stats, "total_net_input_bytes") + infoField(stats, "total_net_output_bytes") - own;
      const commands = await redis.info("commandstats");
      own += stats.length + commands.length + INFO_REQUEST_BYTES;
      const calls = [/^cmdstat_evalsha:calls=(\d+)/m, /^cmdstat_eval:calls=(\d+)/m].map(
        (line) => line.exec(commands)?.[1],
      );
      return { bytes, roundTrips: calls.reduce((sum, count) => sum + Number(count ?? 0), 0) };
    },
    async memoryBytes() {
      return infoField(await redis.info("memory"), "used_memory_dataset");
    },
    async stop() {
      redis.disconnect();
      await server.stop();
    },
  };
}

/** `*2\r\n$4\r\ninfo\r\n$5\r\nstats\r\n`, and the same of `commandstats`. */
const INFO_REQUEST_BYTES = 25 + 33;

function infoField(info: string, name: string): number {
  const line = new RegExp(`^${name}:(\\d+)`, "m").exec(info);
  if (!line) throw new Error(`INFO has no ${name}`);
  return Number(line[1]);
}

export async function startBare(modelUrl: string): Promise<Target> {
  const server = await forkServer("bare-server.ts", [modelUrl]);
  return { ...server, name: "bare", baseUrl: `http://127.0.0.1:${server.port}` };
}

export interface ParleyOptions {
  readonly directory: string;
  /** Several may run: each has its files under this name. Default: `parley`. */
  readonly fileName?: string;
  /** With budgets that bind each call: hour, day and month of its tenant, its user and its session. Default: none. */
  readonly budgets?: boolean;
  /** Default: the production entry. */
  readonly entry?: "src/main.ts" | "bench/unaccounted-service.ts";
  readonly redisUrl: string;
  readonly modelUrl: string;
  /** Flags for Node, as --cpu-prof. */
  readonly nodeFlags?: readonly string[];
}

/**
 * The production entry as it is deployed: logs at level info into a file, metrics on, traces sampled; only the rate limit is
 * raised.
 */
export async function startParley({
  directory,
  fileName = "parley",
  budgets = false,
  entry = "src/main.ts",
  redisUrl,
  modelUrl,
  nodeFlags = [],
}: ParleyOptions): Promise<Target> {
  const [port, opsPort] = [await freePort(), await freePort()];
  const configFile = join(directory, `${fileName}.yaml`);
  writeFileSync(configFile, parleyYaml({ budgets }));
  const entryFile = fileURLToPath(new URL(`../${entry}`, import.meta.url));
  const server = await startProgram(process.execPath, [...nodeFlags, entryFile], {
    outputFile: join(directory, `${fileName}.log`),
    env: {
      ...process.env,
      PORT: String(port),
      OPS_PORT: String(opsPort),
      REDIS_URL: redisUrl,
      OPENAI_BASE_URL: modelUrl,
      OPENAI_API_KEY: "bench",
      MODEL: MODEL_NAMES.burst,
      CONFIG_FILE: configFile,
      RATE_LIMIT: "1000000000",
      DRAIN_MS: "1000",
      LOG_LEVEL: "info",
      OTLP_ENDPOINT: modelUrl.replace(/\/v1$/, ""),
      // One turn of twenty, as a service of this rate would be traced (DESIGN §8: "sample traces").
      OTEL_TRACES_SAMPLER: "parentbased_traceidratio",
      OTEL_TRACES_SAMPLER_ARG: "0.05",
    },
    isReady: async () => (await fetch(`http://127.0.0.1:${opsPort}/readyz`)).ok,
  });
  return { ...server, name: "parley", baseUrl: `http://127.0.0.1:${port}` };
}

/** A team for each way that the model double answers; the window is fixed, so that its size is no variable. */
function parleyYaml({ budgets }: { budgets: boolean }): string {
  const names = Object.values(MODEL_NAMES);
  return stringify({
    ...(budgets ? { budgets: BUDGETS } : {}),
    agents: Object.fromEntries(names.map((model) => [model, { model }])),
    teams: Object.fromEntries(names.map((agent) => [agent, { agent, history_messages: WINDOW_MESSAGES }])),
    default_team: MODEL_NAMES.burst,
    models: Object.fromEntries(names.map((name) => [name, { context_window_tokens: 128_000, endpoints: [{}] }])),
  });
}

/** So high that nothing is refused. */
const BUDGETS = [{ scope: "tenant" }, { scope: "user", id: "*" }, { scope: "session", id: "*" }].flatMap((scope) =>
  ["hour", "day", "month"].map((period) => ({ ...scope, period, limit_micro_usd: 10 ** 15, limit_tokens: 10 ** 15 })),
);
