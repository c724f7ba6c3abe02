import { createHash } from "node:crypto";
import { Cluster, Command, Redis, type RedisOptions } from "ioredis";
import { Failure } from "../failure.ts";
import { REDIS_SCRIPTS, type RedisScriptName } from "./redis-scripts.ts";

/** A command that has no answer after this long has failed, in milliseconds: far above any healthy answer, well below a lease. */
const COMMAND_TIMEOUT_MS = 2_000;

/** In a Cluster a command may be redirected, or wait until the nodes are known; this bounds all of it, in milliseconds. */
const CLUSTER_COMMAND_TIMEOUT_MS = 3_000;

/** A socket that owes an answer for this long is given up, in milliseconds: a server that hangs is connected to anew. */
const SOCKET_TIMEOUT_MS = 5_000;

/** A replica has this long to acknowledge a write, in milliseconds. */
const REPLICA_TIMEOUT_MS = 1_000;

/**
 * Where a replica has just failed to, writes ask for this long only, in milliseconds: WAIT blocks a connection that all
 * share, reads included, and a shard that has lost its replica would stand still for all of them.
 */
const REPLICA_RETRY_MS = 20;

/** The wait before a reconnect grows by this much with each try, up to the most, in milliseconds. */
const RECONNECT_DELAY_MS = { step: 50, most: 1_000 } as const;

/** What callers of an unreachable store are advised to wait, in milliseconds. */
const STORE_RETRY_AFTER_MS = 1_000;

export interface RedisConnectionOptions {
  /** The connection was lost or could not be made; it is tried again for ever. `problem` has neither content nor secrets. */
  onError?(problem: string): void;
  /** Something that works but should not be so, as a sentence; each sentence once per connection. */
  onWarning?(sentence: string): void;
  /** Whether the connection is made by the first command, and not at once. Default: no. */
  readonly lazy?: boolean;
  /**
   * What a script that writes, or reads a turn, waits for before it resolves: the server that took it, or one replica of it too. A write that
   * reaches no replica within {@link REPLICA_TIMEOUT_MS} is STORE_UNAVAILABLE: it may be there, and may be repeated. Default:
   * `local`.
   */
  readonly durability?: "local" | "replica";
}

/** A script's argument; numbers must be integers. */
export type RedisArgument = string | number | Uint8Array;

/** A Lua script and how many keys it takes. */
export interface RedisScript {
  readonly numberOfKeys: number;
  readonly lua: string;
  /** Writes nothing, so that no replica need have it. */
  readonly readOnly?: true;
}

/** Runs the scripts of a table, as {@link RedisConnection.run} those of `redis-scripts.ts`. */
export type ScriptRunner<Name extends string> = (
  script: Name,
  keys: readonly string[],
  args: readonly RedisArgument[],
) => Promise<unknown>;

/** Runs one script with its keys, then its arguments; strings in its reply are Buffers. */
export type RunScript = (values: readonly (string | Buffer)[]) => Promise<unknown>;

/** One Redis, or one Redis Cluster. All rejections are {@link Failure}s: STORE_UNAVAILABLE unless it says otherwise. */
export interface RedisConnection {
  /** Runs a script of `redis-scripts.ts`; strings in its reply are Buffers. All keys are in one slot. */
  run(script: RedisScriptName, keys: readonly string[], args: readonly RedisArgument[]): Promise<unknown>;
  /** Makes the scripts of a further table known, and returns how to run them. */
  scripts<Name extends string>(table: Readonly<Record<Name, RedisScript>>): ScriptRunner<Name>;
  /** Whether what a script has written is not durable before the script's answer: a replica is waited for. */
  readonly waitsForReplica: boolean;
  /** Runs plain commands of the client with the same rejections. */
  use<T>(operation: (client: Redis | Cluster) => Promise<T>): Promise<T>;
  /** Makes a script runnable that a library brings, under the library's name of it; its rejections are not mapped. */
  script(name: string, script: RedisScript): RunScript;
  /** The client, for what is done once. */
  readonly client: Redis | Cluster;
  /**
   * Resolves when every master answers and may be used. Rejects with STORE_UNAVAILABLE, or with an Error whose message is
   * a sentence that says why this Redis must not be used. Warns of a Redis without an append-only file.
   */
  ping(): Promise<void>;
  /** Closes after the answers that are due, or after a while. */
  close(): Promise<void>;
}

/**
 * Connects, in the background, or with `lazy` when the first command comes. `redis://` and `rediss://` (TLS), each with `user:password@` and for a single server
 * `/database`. Several addresses with commas between them, or `?cluster=true`, mean a Redis Cluster:
 * `redis://10.0.0.1:6379,10.0.0.2:6379`, with or without `redis://` before each of them. Throws an Error that says what is wrong with a URL, without quoting it.
 *
 * Commands wait for the first connection but never for a lost one, and none waits for more than a few seconds.
 */
export function connectRedis(url: string, options: RedisConnectionOptions = {}): RedisConnection {
  const address = parseRedisUrl(url);
  const lazyConnect = options.lazy ?? false;
  const client = address.cluster ? connectCluster(address, lazyConnect) : connectSingle(address, lazyConnect);
  client.on("error", (error: unknown) => options.onError?.(describeRedisError(error)));

  const waitsForReplica = options.durability === "replica";
  const define = (name: string, script: RedisScript): RunScript => {
    if (client instanceof Redis && !waitsForReplica) return defineOnServer(client, script);
    // ioredis finds a Cluster's node by the keys, and gathers what goes to one node.
    client.defineCommand(name, { lua: script.lua, numberOfKeys: script.numberOfKeys });
    return (values) => call(client, name, values) as Promise<unknown>;
  };
  /** Masters that no replica has acknowledged the newest write of. */
  const lonely = new Set<string>();
  const warned = new Set<string>();
  const warn = (sentence: string): void => {
    if (warned.has(sentence)) return;
    warned.add(sentence);
    options.onWarning?.(sentence);
  };
  const attempt = <T>(operation: (client: Redis | Cluster) => Promise<T>): Promise<T> =>
    client instanceof Cluster ? withDeadline(operation(client), CLUSTER_COMMAND_TIMEOUT_MS) : operation(client);
  const use = async <T>(operation: (client: Redis | Cluster) => Promise<T>): Promise<T> => {
    try {
      return await attempt(operation).catch(async (error: unknown) => {
        // Nothing was done. The client follows a slot to its new master only where all of a pipeline say the same.
        if (!(client instanceof Cluster) || replyCode(error) !== "MOVED") throw error;
        await attempt(() => refreshSlots(client));
        return await attempt(operation);
      });
    } catch (error) {
      throw failureOfRedisError(error);
    }
  };

  const scripts = <Name extends string>(table: Readonly<Record<Name, RedisScript>>): ScriptRunner<Name> => {
    const runs = new Map(Object.entries<RedisScript>(table).map(([name, script]) => [name, define(name, script)]));
    const runLocally = (script: Name, values: readonly (string | Buffer)[]): Promise<unknown> => {
      const run = runs.get(script);
      if (run === undefined) throw new TypeError(`script ${script} is not defined`);
      return run(values);
    };
    return (script, keys, args) =>
      use(() => {
        const values = [...keys, ...args.map(toArgument)];
        return waitsForReplica && (table[script].readOnly !== true || DELIVERS.has(script))
          ? runReplicated(client, script, { keys, values, lonely })
          : runLocally(script, values);
      });
  };

  return {
    client,
    waitsForReplica,
    use,
    script: define,
    scripts,
    run: scripts<RedisScriptName>(REDIS_SCRIPTS),
    async ping() {
      const infos = await use(async () => {
        // A command that routes by a slot waits until the Cluster's masters are known.
        if (client instanceof Cluster) await client.exists("{parley}:ping");
        const masters = client instanceof Cluster ? client.nodes("master") : [client];
        return await Promise.all(masters.map((master) => master.info("memory", "persistence")));
      });
      for (const info of infos) checkRedisInfo(info, warn);
    },
    async close() {
      // Never used: there is nothing to wait for, and no connection to be made for a farewell.
      if (client.status === "wait") return client.disconnect();
      await withDeadline(client.quit(), COMMAND_TIMEOUT_MS).catch(() => undefined);
      client.disconnect();
    },
  };
}

/** Calls a script by the command that the client, or a pipeline of it, has of it. */
function call(client: object, script: string, values: readonly (string | Buffer)[]): unknown {
  const command: unknown = Reflect.get(client, `${script}Buffer`);
  if (typeof command !== "function") throw new TypeError(`script ${script} is not defined`);
  return Reflect.apply(command, client, values);
}

/** Runs a script and waits, on the connection that it ran on, until one replica has all that it wrote or read. */
async function runReplicated(
  client: Redis | Cluster,
  script: string,
  {
    keys: [key = ""],
    values,
    lonely,
  }: { keys: readonly string[]; values: readonly (string | Buffer)[]; lonely: Set<string> },
): Promise<unknown> {
  const master = client instanceof Cluster ? (client.slots[slotOf(key)]?.[0] ?? "") : "";
  const pipeline = client.pipeline();
  call(pipeline, script, values);
  pipeline.wait(1, lonely.has(master) ? REPLICA_RETRY_MS : REPLICA_TIMEOUT_MS);
  const [written, replicated] = (await pipeline.exec()) ?? [];
  if (written?.[0]) throw written[0];
  if (replicated?.[0]) throw replicated[0];
  if (Number(replicated?.[1] ?? 0) < 1) {
    lonely.add(master);
    throw new Error("no replica acknowledged the write");
  }
  lonely.delete(master);
  return written?.[1];
}

/** Learns anew which master has which slots. */
function refreshSlots(client: Cluster): Promise<void> {
  return new Promise((resolve, reject) => {
    client.refreshSlotsCache((error) => (error ? reject(error) : resolve()));
  });
}

/** A key's slot: CRC16 (XMODEM) of its tag, of 16384 (redis.io, "Redis cluster specification"). */
function slotOf(key: string): number {
  const tag = /\{([^}]+)\}/.exec(key)?.[1] ?? key;
  let crc = 0;
  for (const byte of Buffer.from(tag)) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 0x8000) === 0 ? crc << 1 : (crc << 1) ^ 0x1021;
  }
  return crc & 0x3fff;
}

/** Scripts that read what clients are given of a turn: nothing that a failover could unsay. */
const DELIVERS: ReadonlySet<string> = new Set<RedisScriptName>(["parleyReadLog", "parleyGetTurn"]);

/**
 * A script on one server. Sent past ioredis' own custom commands and pipelines, which cost twice as much as the rest of a
 * command: a pipeline is given every script that is known as a property, and the next one waits for its answers.
 */
function defineOnServer(client: Redis, { lua, numberOfKeys }: RedisScript): RunScript {
  const sha = shaOf(lua);
  const send = (name: string, script: string, args: readonly (string | Buffer)[]): Promise<unknown> => {
    gatherWrites(client);
    return client.sendCommand(new ScriptCommand(name, [script, String(numberOfKeys), ...args])) as Promise<unknown>;
  };
  return async (args) => {
    try {
      return await send("evalsha", sha, args);
    } catch (error) {
      // The server was restarted, or is another one.
      if (replyCode(error) !== "NOSCRIPT") throw error;
      return await send("eval", lua, args);
    }
  };
}

/** A command of many strings and some buffers, put together in one pass: 3 us for the 6.5 of ioredis' own. */
class ScriptCommand extends Command {
  override toWritable(): string | Buffer {
    const args = this.args as readonly (string | Buffer)[];
    let text = `*${args.length + 1}\r\n$${this.name.length}\r\n${this.name}\r\n`;
    const texts: string[] = [];
    const buffers: Buffer[] = [];
    let bytes = 0;
    for (const arg of args) {
      if (typeof arg === "string") {
        text += `$${Buffer.byteLength(arg)}\r\n${arg}\r\n`;
      } else {
        text += `$${arg.length}\r\n`;
        texts.push(text);
        buffers.push(arg);
        bytes += Buffer.byteLength(text) + arg.length;
        text = "\r\n";
      }
    }
    if (buffers.length === 0) return text;
    const all = Buffer.allocUnsafe(bytes + Buffer.byteLength(text));
    let at = 0;
    for (const [index, buffer] of buffers.entries()) {
      at += all.write(texts[index] ?? "", at);
      all.set(buffer, at);
      at += buffer.length;
    }
    all.write(text, at);
    return all;
  }
}

/** What is sent until this turn of the event loop ends goes out in one write: a write costs more than a command. */
function gatherWrites({ stream }: Redis): void {
  if (stream === undefined || stream.writableCorked > 0) return;
  stream.cork();
  setImmediate(() => stream.uncork());
}

function shaOf(lua: string): string {
  return createHash("sha1").update(lua).digest("hex");
}

/** What the client's errors mean for a caller. The cause says what happened, without a command's arguments or a reply's text. */
export function failureOfRedisError(error: unknown): Failure {
  if (error instanceof Failure) return error;
  const cause = new Error(describeRedisError(error));
  const code = replyCode(error);
  // The server answers so to every repetition, or the command could not even be written: a fault of ours.
  const isOurs = code === undefined ? error instanceof TypeError : !UNAVAILABLE_REPLIES.has(code);
  if (isOurs) return new Failure("INTERNAL", {}, { cause });
  return new Failure("STORE_UNAVAILABLE", { retryAfterMs: STORE_RETRY_AFTER_MS }, { cause });
}

/** Error replies of a Redis that cannot serve now, by their first word (redis.io, "error codes" of each feature). */
const UNAVAILABLE_REPLIES: ReadonlySet<string> = new Set([
  "ASK",
  "BUSY",
  "CLUSTERDOWN",
  "LOADING",
  "MASTERDOWN",
  "MISCONF",
  "MOVED",
  "NOAUTH",
  "NOPERM",
  "NOREPLICAS",
  "OOM",
  "READONLY",
  "TRYAGAIN",
  "UNBLOCKED",
  "UNKILLABLE",
  "WRONGPASS",
]);

interface RedisAddress {
  readonly cluster: boolean;
  readonly nodes: readonly { readonly host: string; readonly port: number }[];
  readonly options: Pick<RedisOptions, "username" | "password" | "db" | "tls">;
}

function parseRedisUrl(url: string): RedisAddress {
  const [, scheme, credentials, hosts = "", path = "", query = ""] =
    /^(rediss?):\/\/(?:([^@/]*)@)?([^/?]+)(?:\/([^?]*))?(?:\?(.*))?$/.exec(url.replaceAll(/,rediss?:\/\//g, ",")) ?? [];
  if (scheme === undefined) throw new Error("A Redis URL is redis:// or rediss://, then host:port.");
  const nodes = hosts.split(",").map((host) => {
    const parsed = URL.parse(`redis://${host}`);
    if (parsed === null || parsed.hostname === "" || parsed.pathname !== "") {
      throw new Error("A Redis URL has an address that is no host:port.");
    }
    return { host: parsed.hostname.replace(/^\[|\]$/g, ""), port: Number(parsed.port || 6379) };
  });
  const cluster = nodes.length > 1 || new URLSearchParams(query).get("cluster") === "true";
  if (path !== "" && !/^\d+$/.test(path)) throw new Error("A Redis URL's path is the number of a database.");
  if (cluster && Number(path) !== 0) throw new Error("A Redis Cluster has database 0 only.");
  const [username = "", password = ""] = splitCredentials(credentials).map(decodeURIComponent);
  return {
    cluster,
    nodes,
    options: {
      ...(username === "" ? {} : { username }),
      ...(password === "" ? {} : { password }),
      ...(path === "" || cluster ? {} : { db: Number(path) }),
      ...(scheme === "rediss" ? { tls: {} } : {}),
    },
  };
}

function splitCredentials(credentials = ""): string[] {
  const colon = credentials.indexOf(":");
  return colon < 0 ? [credentials] : [credentials.slice(0, colon), credentials.slice(colon + 1)];
}

const COMMON_OPTIONS = {
  commandTimeout: COMMAND_TIMEOUT_MS,
  connectTimeout: COMMAND_TIMEOUT_MS,
  socketTimeout: SOCKET_TIMEOUT_MS,
  // A command whose connection is lost fails at once; who sent it knows whether and how to repeat it.
  maxRetriesPerRequest: 0,
  autoResendUnfulfilledCommands: false,
  disableClientInfo: true,
  // Commands of one tick go out in one write.
  enableAutoPipelining: true,
} as const satisfies RedisOptions;

function connectSingle({ nodes: [node], options }: RedisAddress, lazyConnect: boolean): Redis {
  return new Redis({
    ...COMMON_OPTIONS,
    ...options,
    ...node,
    lazyConnect,
    retryStrategy: reconnectDelayMs,
    // After a failover behind one address: the old master refuses writes, the address leads to the new one.
    reconnectOnError: (error) => error.message.startsWith("READONLY"),
  });
}

function connectCluster({ nodes, options }: RedisAddress, lazyConnect: boolean): Cluster {
  return new Cluster([...nodes], {
    lazyConnect,
    clusterRetryStrategy: reconnectDelayMs,
    redisOptions: { ...COMMON_OPTIONS, ...options },
    // Certificates are made out to names: with TLS the nodes are addressed as the Cluster announces them.
    ...(options.tls === undefined ? {} : { dnsLookup: (host, done) => done(null, host) }),
  });
}

function reconnectDelayMs(attempt: number): number {
  return Math.min(attempt * RECONNECT_DELAY_MS.step, RECONNECT_DELAY_MS.most);
}

function checkRedisInfo(info: string, warn: (sentence: string) => void): void {
  const policy = /^maxmemory_policy:(\S+)/m.exec(info)?.[1];
  if (policy !== undefined && policy !== "noeviction") {
    throw new Error(
      `Redis has maxmemory-policy ${policy}, which drops sessions when memory is short: set it to noeviction.`,
    );
  }
  if (/^aof_enabled:0/m.test(info)) {
    warn("Redis has no append-only file: what it acknowledged is lost when it restarts. Set appendonly to yes.");
  }
}

function toArgument(value: RedisArgument): string | Buffer {
  if (typeof value === "string") return value;
  if (typeof value === "number") return String(value);
  return Buffer.isBuffer(value) ? value : Buffer.from(value.buffer, value.byteOffset, value.byteLength);
}

async function withDeadline<T>(promise: Promise<T>, deadlineMs: number): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("Command timed out")), deadlineMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** First word of an error reply; undefined: the error is none. */
function replyCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || error.name !== "ReplyError") return undefined;
  return /^[A-Z]+/.exec(error.message)?.[0] ?? "ERR";
}

/** An error reply may quote arguments, and the client hangs the whole command on it: only its code is passed on. */
function describeRedisError(error: unknown): string {
  const code = replyCode(error);
  if (code !== undefined) return `Redis answered ${code}`;
  if (!(error instanceof Error)) return "Redis failed";
  const system = "code" in error && typeof error.code === "string" ? error.code : undefined;
  return `Redis connection failed: ${system ?? error.message}`;
}
