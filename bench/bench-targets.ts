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

/** A redis-server of the bench's own: append-only file on, as REDIS_DURABILITY=local wants it. */
export interface BenchRedis extends BenchProcess {
  readonly url: string;
  /** Bytes that clients sent to it and got from it so far, less what this question moved. */
  bytesMoved(): Promise<number>;
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
    async bytesMoved() {
      const info = await redis.info("stats");
      const moved = infoField(info, "total_net_input_bytes") + infoField(info, "total_net_output_bytes");
      const answer = moved - own;
      own += info.length + INFO_REQUEST_BYTES;
      return answer;
    },
    async stop() {
      redis.disconnect();
      await server.stop();
    },
  };
}

/** `*2\r\n$4\r\ninfo\r\n$5\r\nstats\r\n` */
const INFO_REQUEST_BYTES = 25;

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
  readonly redisUrl: string;
  readonly modelUrl: string;
  /** Flags for Node, as --cpu-prof. */
  readonly nodeFlags?: readonly string[];
}

/**
 * The production entry as it is deployed: logs at level info into a file, metrics on, traces sampled; only the rate limit is
 * raised.
 */
export async function startParley({ directory, redisUrl, modelUrl, nodeFlags = [] }: ParleyOptions): Promise<Target> {
  const [port, opsPort] = [await freePort(), await freePort()];
  const configFile = join(directory, "parley.yaml");
  writeFileSync(configFile, parleyYaml());
  const entry = fileURLToPath(new URL("../src/main.ts", import.meta.url));
  const server = await startProgram(process.execPath, [...nodeFlags, entry], {
    outputFile: join(directory, "parley.log"),
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
function parleyYaml(): string {
  const names = Object.values(MODEL_NAMES);
  return stringify({
    agents: Object.fromEntries(names.map((model) => [model, { model }])),
    teams: Object.fromEntries(names.map((agent) => [agent, { agent, history_messages: WINDOW_MESSAGES }])),
    default_team: MODEL_NAMES.burst,
    models: Object.fromEntries(names.map((name) => [name, { context_window_tokens: 128_000, endpoints: [{}] }])),
  });
}
