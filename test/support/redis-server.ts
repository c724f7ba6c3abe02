import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { Redis } from "ioredis";

/** A Redis must answer this long after its start at the latest, a Cluster must be whole, in milliseconds. */
const START_DEADLINE_MS = 20_000;

/** A server that does not stop on request is killed after this long, in milliseconds. */
const STOP_DEADLINE_MS = 5_000;

export interface RedisServer {
  readonly port: number;
  /** `redis://127.0.0.1:<port>` */
  readonly url: string;
  readonly pid: number;
  /** Stops it, if it still runs, and removes its data. */
  stop(): Promise<void>;
  /** Kills it; its data stay. */
  kill(): Promise<void>;
  /** Starts it again after `kill`, on the same port and data. */
  restart(): Promise<void>;
  /** Lets it stand still, or go on: its connections stay open. */
  pause(paused: boolean): void;
  /** Changes a setting while it runs. */
  configure(name: string, value: string): Promise<void>;
  /** Names of keys that match a pattern, as `KEYS` has it. */
  keys(pattern: string): Promise<string[]>;
  /** A key's time to live in milliseconds; -1: it has none. */
  lifeMs(key: string): Promise<number>;
}

export interface RedisServerOptions {
  /** Whether it keeps an append-only file, written before each answer. Default: no. */
  readonly appendOnly?: boolean;
  /** Further settings, such as `{"maxmemory-policy": "allkeys-lru"}`. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Port of the loopback that it replicates; a start then waits until it has all. */
  readonly replicaOf?: number;
  /** Variables beside this process' own. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Starts a real redis-server on a free port of the loopback. */
export async function startRedisServer(options: RedisServerOptions = {}): Promise<RedisServer> {
  const [port] = await freePorts(1);
  return startOn(port ?? 0, options);
}

export interface RedisCluster {
  /** `redis://127.0.0.1:<port>,127.0.0.1:<port>,127.0.0.1:<port>` */
  readonly url: string;
  readonly masters: readonly RedisServer[];
  /** One of each master, in no order. */
  readonly replicas: readonly RedisServer[];
  /** The node that is the master of a key now. */
  masterOf(key: string): Promise<RedisServer>;
  stop(): Promise<void>;
}

/**
 * Starts a real Redis Cluster of three masters, each with a replica where asked, on free ports of the loopback; resolves
 * when all of them say it is whole.
 */
export async function startRedisCluster({
  withReplicas = false,
  ...options
}: RedisServerOptions & { readonly withReplicas?: boolean } = {}): Promise<RedisCluster> {
  const nodes = withReplicas ? 6 : 3;
  const ports = await freePorts(2 * nodes);
  const settings = (index: number): Record<string, string> => ({
    "cluster-enabled": "yes",
    "cluster-config-file": "nodes.conf",
    "cluster-node-timeout": "2000",
    "cluster-port": String(ports[index + nodes]),
    ...options.settings,
  });
  const started = await Promise.allSettled(
    ports.slice(0, nodes).map((port, index) => startOn(port, { ...options, settings: settings(index) })),
  );
  const all = started.flatMap((start) => (start.status === "fulfilled" ? [start.value] : []));
  const stop = async (): Promise<void> => {
    await Promise.all(all.map((node) => node.stop()));
  };
  try {
    for (const start of started) if (start.status === "rejected") throw start.reason;
    const addresses = all.map(({ port }) => `127.0.0.1:${port}`);
    const kind = withReplicas ? ["--cluster-replicas", "1"] : [];
    await promisify(execFile)("redis-cli", ["--cluster", "create", ...addresses, ...kind, "--cluster-yes"], {
      timeout: START_DEADLINE_MS,
    });
    const isWhole = async (redis: Redis): Promise<boolean> => {
      if (!/cluster_state:ok/.test(await redis.cluster("INFO"))) return false;
      const role = await redis.info("replication");
      return !withReplicas || /master_link_status:up|connected_slaves:1/.test(role);
    };
    await Promise.all(all.map(({ port }) => untilAnswers(port, isWhole)));
    const masterOf = async (key: string): Promise<RedisServer> => {
      for (const { port } of all) {
        const found = await askAt(port, async (redis) => {
          const slot = Number(await redis.cluster("KEYSLOT", key));
          const slots = await redis.cluster("SLOTS");
          return slots.find(([from, to]) => from <= slot && slot <= to)?.[2]?.[1];
        }).catch(() => undefined);
        const node = all.find((one) => one.port === found);
        if (node !== undefined) return node;
      }
      throw new Error("no node knows the key's master");
    };
    return {
      url: `redis://${addresses.slice(0, 3).join(",")}`,
      masters: all.slice(0, 3),
      replicas: all.slice(3),
      masterOf,
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function startOn(
  port: number,
  { appendOnly = false, replicaOf, settings = {}, env = {} }: RedisServerOptions,
): Promise<RedisServer> {
  const directory = await mkdtemp(join(tmpdir(), "parley-redis-"));
  const args = Object.entries({
    port: String(port),
    bind: "127.0.0.1",
    dir: directory,
    save: "",
    appendonly: appendOnly ? "yes" : "no",
    appendfsync: "always",
    // Over a disk: a replica that was synchronized without one is sent nothing before its next word, up to a second later,
    // though both sides call it whole by then. A master that dies meanwhile takes all with it that it has acknowledged.
    "repl-diskless-sync": "no",
    ...(replicaOf === undefined ? {} : { replicaof: `127.0.0.1 ${replicaOf}` }),
    ...settings,
  }).flatMap(([name, value]) => [`--${name}`, ...value.split(" ")]);

  const isUp = replicaOf === undefined ? async (redis: Redis) => (await redis.ping()) === "PONG" : replicates;
  const run = async () => {
    const child = spawn("redis-server", args, { stdio: "ignore", env: { ...process.env, ...env } });
    // A test process that breaks off leaves nothing behind.
    const onExit = (): void => void child.kill("SIGKILL");
    process.once("exit", onExit);
    child.once("exit", () => process.off("exit", onExit));
    const failed = once(child, "error").then(([error]: unknown[]) => Promise.reject(error));
    const exited = once(child, "exit").then(() => Promise.reject(new Error(`redis-server on port ${port} exited`)));
    // Both stay without a listener once the server has answered.
    failed.catch(() => undefined);
    exited.catch(() => undefined);
    await Promise.race([untilAnswers(port, isUp), failed, exited]);
    return child;
  };
  let child = await run();
  const ask = <T>(question: (redis: Redis) => Promise<T>): Promise<T> => askAt(port, question);

  const end = async (signal: NodeJS.Signals): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exit = once(child, "exit");
    // One that stands still ends too.
    child.kill("SIGCONT");
    child.kill(signal);
    const timer = setTimeout(() => child.kill("SIGKILL"), STOP_DEADLINE_MS);
    await exit;
    clearTimeout(timer);
  };
  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    get pid() {
      return child.pid ?? 0;
    },
    kill: () => end("SIGKILL"),
    async restart() {
      await end("SIGKILL");
      child = await run();
    },
    pause(paused) {
      child.kill(paused ? "SIGSTOP" : "SIGCONT");
    },
    configure: async (name, value) => void (await ask((redis) => redis.config("SET", name, value))),
    keys: (pattern) => ask((redis) => redis.keys(pattern)),
    lifeMs: (key) => ask((redis) => redis.pttl(key)),
    async stop() {
      await end("SIGTERM");
      await rm(directory, { recursive: true, force: true });
    },
  };
}

async function askAt<T>(port: number, question: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = new Redis({ port, host: "127.0.0.1", retryStrategy: () => null });
  redis.on("error", () => undefined);
  try {
    return await question(redis);
  } finally {
    redis.disconnect();
  }
}

/** Resolves when a Redis answers as it should. */
async function untilAnswers(port: number, isReady: (redis: Redis) => Promise<boolean>): Promise<void> {
  const redis = new Redis({ port, host: "127.0.0.1", retryStrategy: () => 25, maxRetriesPerRequest: null });
  redis.on("error", () => undefined);
  const deadlineMs = performance.now() + START_DEADLINE_MS;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`Redis on port ${port} is not ready`)), START_DEADLINE_MS);
  });
  try {
    while (performance.now() < deadlineMs) {
      if (await Promise.race([isReady(redis).catch(() => false), late])) return;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    await late;
  } finally {
    clearTimeout(timer);
    redis.disconnect();
  }
}

/** Ports that nobody listens on; all are held until the last is found, so that they differ. */
export async function freePorts(count: number): Promise<number[]> {
  const servers: Server[] = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer();
      server.listen(0, "127.0.0.1");
      await once(server, "listening");
      return server;
    }),
  );
  const ports = servers.map((server) => {
    const address = server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  });
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

async function replicates(redis: Redis): Promise<boolean> {
  return /^master_link_status:up/m.test(await redis.info("replication"));
}
