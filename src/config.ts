import * as z from "zod";
import type { ConfiguredBudget } from "./accounts/budgets.ts";
import type { ConfiguredPrices } from "./accounts/prices-yaml.ts";
import type { TeamDefinition } from "./engine/team.ts";
import type { Tool } from "./engine/tool.ts";
import {
  type AuthConfig,
  authEnvironment,
  authProblems,
  authVariables,
  readAuth,
} from "./identity/auth-environment.ts";
import { type Breaker, type ModelDefinition, type ParleyYaml, parseParleyYaml } from "./parley-yaml.ts";
import {
  ConfigError,
  givenOf,
  isLoopback,
  oneOf,
  urlOf,
  wholeNumber as wholeNumberOf,
} from "./platform/environment.ts";
import { readTls, type TlsConfig, tlsEnvironment, tlsProblems, tlsVariables } from "./platform/tls-environment.ts";
import { OLDEST_WRITABLE, SCHEMA_VERSION } from "./store/stored-formats.ts";
import type { McpServerDefinition } from "./tools/mcp-servers-yaml.ts";
import { STANDARD_TOOLS } from "./tools/standard-tools.ts";

/** All that a process is told from outside. Frozen. */
export interface Config {
  readonly host: string;
  readonly port: number;
  readonly opsPort: number;
  /** The standalone's. */
  readonly usagePort: number;
  readonly usageOpsPort: number;
  readonly topUsers: number;
  /** How long the sidecar waits for a last scrape, in milliseconds. */
  readonly lastScrapeMs: number;
  readonly alertmanagerUrl: string | undefined;
  /** Absent: the embedded store. */
  readonly redisUrl: string | undefined;
  /** What a write waits for: the server that took it, or one replica too. */
  readonly redisDurability: "local" | "replica";
  /** Version of the stored formats that is written: this release's own, or the one before while that still runs. */
  readonly writeSchema: number;
  /** How callers are known. */
  readonly auth: AuthConfig;
  /** Absent: the port speaks no TLS. */
  readonly tls: TlsConfig | undefined;
  readonly models: ReadonlyMap<string, ModelDefinition>;
  readonly breaker: Breaker;
  readonly teams: ReadonlyMap<string, TeamDefinition>;
  readonly defaultTeam: string;
  /** Tools that are part of the process. */
  readonly tools: ReadonlyMap<string, Tool>;
  /** Servers whose tools agents can be allowed to call. */
  readonly mcpServers: ReadonlyMap<string, McpServerDefinition>;
  /** The file that most of this is from; undefined: there is none. */
  readonly configFile: ConfigFile | undefined;
  readonly prices: ConfiguredPrices;
  readonly budgets: readonly ConfiguredBudget[];
  /** Bound on the tokens of all model calls of a turn. */
  readonly maxTokens: number;
  readonly sessionTtlMs: number;
  readonly leaseMs: number;
  readonly drainMs: number;
  readonly rateLimit: { readonly limit: number; readonly windowSeconds: number };
  readonly maxStreamsPerConnection: number;
  readonly corsOrigins: readonly string[];
  /** Whether the REST calls of the FastAPI service around AutoGen are answered. */
  readonly restDoor: boolean;
  readonly otlpEndpoint: string | undefined;
  readonly version: string;
  readonly track: string;
  readonly logLevel: LogLevel;
}

/** parley.yaml, to be read again. */
export interface ConfigFile {
  /** What it had when the process started. */
  readonly text: string;
  /** Reads it; throws when it cannot. */
  read(): string;
  /** What a text of it comes to, in this process' environment; undefined: it could not be read. Throws a ConfigError. */
  parse(text: string | undefined): ParleyYaml;
}

export type LogLevel = "debug" | "info" | "warn" | "error" | "silent";

/** Name, meaning and default of each variable; docs/config.md is tested against it. */
export const environmentVariables = {
  HOST: { default: "127.0.0.1", meaning: "address to listen on" },
  PORT: { default: "8080", meaning: "port of the RPCs and the console" },
  OPS_PORT: { default: "9090", meaning: "port of /livez, /readyz and /metrics" },
  USAGE_PORT: { default: "8081", meaning: "port of UsageService, in the sidecar and the standalone" },
  USAGE_OPS_PORT: { default: "9091", meaning: "port of the sidecar's /livez, /readyz, /metrics and /rules" },
  REDIS_URL: {
    default: "",
    meaning: "redis:// or rediss:// URL of the session store; several, separated by commas, name a Redis Cluster",
  },
  REDIS_DURABILITY: {
    default: "local",
    meaning: "what a write waits for: local (the server that took it) or replica (one replica of it too)",
  },
  STATE_WRITE_SCHEMA: {
    default: `${SCHEMA_VERSION}`,
    meaning: "version of the stored formats that is written; during an upgrade the oldest that still runs",
  },
  OPENAI_API_KEY: { default: "", meaning: "key of the default model endpoint" },
  OPENAI_BASE_URL: {
    default: "https://api.openai.com/v1",
    meaning: "URL of the default model endpoint, any OpenAI-compatible server",
  },
  MODEL: { default: "gpt-4", meaning: "model of agents that name none" },
  MAX_TOKENS: { default: "4000", meaning: "prompt and completion tokens of all model calls of a turn, at most" },
  MAX_ROUNDS: { default: "20", meaning: "rounds of model calls in a turn, at most" },
  SESSION_TTL_HOURS: { default: "24", meaning: "hours after its last use that a session is kept" },
  RATE_LIMIT: { default: "100", meaning: "turns that a user may start in a window" },
  RATE_WINDOW: { default: "3600", meaning: "length of the window in seconds" },
  OTLP_ENDPOINT: { default: "", meaning: "URL of an OpenTelemetry collector (OTLP over HTTP); traces are sent there" },
  CONFIG_FILE: { default: "", meaning: "path of parley.yaml, which declares agents, teams and models" },
  CORS_ORIGINS: { default: "", meaning: "origins that browsers may call from, separated by commas" },
  LEASE_MS: {
    default: "10000",
    meaning: "milliseconds after which a turn's owner that is not heard of counts as lost",
  },
  DRAIN_MS: { default: "120000", meaning: "milliseconds that running turns get to end after SIGTERM" },
  MAX_STREAMS_PER_CONNECTION: { default: "1000", meaning: "calls at a time on one HTTP/2 connection" },
  SIDECAR_TOP_USERS: { default: "100", meaning: "users that have a label of their own in the sidecar's metrics" },
  SIDECAR_LAST_SCRAPE_MS: {
    default: "0",
    meaning:
      "milliseconds after SIGTERM that the sidecar's metrics wait for a scrape of what was counted since the last one",
  },
  ALERTMANAGER_URL: { default: "", meaning: "URL of an Alertmanager; the sidecar posts anomalies of cost there" },
  ...authVariables,
  ...tlsVariables,
  REST_DOOR: {
    default: "false",
    meaning: "true: answer the REST calls of the FastAPI service around AutoGen, GET /metrics included, on PORT",
  },
  VERSION: { default: "", meaning: "version of this release; the package's, if not set" },
  TRACK: { default: "stable", meaning: "track of this release: stable or canary" },
  LOG_LEVEL: { default: "info", meaning: "debug, info, warn, error or silent" },
} as const satisfies Record<string, { default: string; meaning: string }>;

/**
 * Reads the environment and the file that CONFIG_FILE names. Reports every problem at once, by name, as one ConfigError.
 * An empty variable counts as not set.
 */
export function loadConfig(
  env: Readonly<Record<string, string | undefined>>,
  {
    readFile,
    packageVersion,
    tools = STANDARD_TOOLS,
  }: {
    /** Reads a text file; throws when it cannot. */
    readFile(path: string): string;
    /** Stands for VERSION where that is not set. */
    packageVersion: string;
    /** Tools that are part of the process. Default: those that Parley brings. */
    tools?: ReadonlyMap<string, Tool>;
  },
): Config {
  const problems: string[] = [];
  const given = givenOf(env);
  const parsed = environmentSchema.safeParse(given);
  if (!parsed.success) {
    for (const { path, message } of parsed.error.issues) problems.push(`${path.join(".")}: ${message}`);
  }
  // The file's problems are told together with the environment's: where a variable is wrong its default stands in.
  const values = parsed.data ?? environmentSchema.parse({ CONFIG_FILE: given.CONFIG_FILE });
  problems.push(...authProblems(given, { isExposed: !isLoopback(given.HOST ?? defaultOf("HOST")) }));
  problems.push(...tlsProblems(given, readFile));

  let text = "";
  if (values.CONFIG_FILE !== undefined) {
    try {
      text = readFile(values.CONFIG_FILE);
    } catch {
      problems.push(`CONFIG_FILE: cannot read ${values.CONFIG_FILE}`);
    }
  }
  const parse = (yaml: string) =>
    parseParleyYaml(yaml, {
      fileName: values.CONFIG_FILE ?? "parley.yaml",
      defaults: {
        model: values.MODEL,
        maxRounds: values.MAX_ROUNDS,
        baseUrl: values.OPENAI_BASE_URL,
        apiKey: values.OPENAI_API_KEY,
      },
      tools: new Set(tools.keys()),
      env: given,
    });
  const file = parse(text);
  problems.push(...file.problems);
  if (problems.length > 0 || file.value === undefined) throw new ConfigError(problems);

  const path = values.CONFIG_FILE;
  const reread = (yaml: string | undefined): ParleyYaml => {
    if (yaml === undefined) throw new ConfigError([`CONFIG_FILE: cannot read ${path}`]);
    const again = parse(yaml);
    if (again.value === undefined) throw new ConfigError(again.problems);
    return again.value;
  };
  return Object.freeze({
    host: values.HOST,
    port: values.PORT,
    opsPort: values.OPS_PORT,
    usagePort: values.USAGE_PORT,
    usageOpsPort: values.USAGE_OPS_PORT,
    topUsers: values.SIDECAR_TOP_USERS,
    lastScrapeMs: values.SIDECAR_LAST_SCRAPE_MS,
    alertmanagerUrl: values.ALERTMANAGER_URL,
    redisUrl: values.REDIS_URL,
    redisDurability: values.REDIS_DURABILITY,
    writeSchema: values.STATE_WRITE_SCHEMA,
    auth: readAuth(values),
    tls: readTls(values),
    ...file.value,
    configFile: path === undefined ? undefined : Object.freeze({ text, read: () => readFile(path), parse: reread }),
    tools,
    maxTokens: values.MAX_TOKENS,
    sessionTtlMs: values.SESSION_TTL_HOURS * 3_600_000,
    leaseMs: values.LEASE_MS,
    drainMs: values.DRAIN_MS,
    rateLimit: Object.freeze({ limit: values.RATE_LIMIT, windowSeconds: values.RATE_WINDOW }),
    maxStreamsPerConnection: values.MAX_STREAMS_PER_CONNECTION,
    corsOrigins: Object.freeze(values.CORS_ORIGINS),
    restDoor: values.REST_DOOR === "true",
    otlpEndpoint: values.OTLP_ENDPOINT,
    version: values.VERSION ?? packageVersion,
    track: values.TRACK,
    logLevel: values.LOG_LEVEL,
  });
}

const defaultOf = (name: keyof typeof environmentVariables): string => environmentVariables[name].default;

const wholeNumber = (name: keyof typeof environmentVariables, bounds: { least?: number; most: number }) =>
  wholeNumberOf({ standard: defaultOf(name), ...bounds });

/** setTimeout's longest wait in milliseconds. */
const LONGEST_MS = 2_147_483_647;

const environmentSchema = z.object({
  HOST: z.string().default(defaultOf("HOST")),
  PORT: wholeNumber("PORT", { least: 0, most: 65_535 }),
  OPS_PORT: wholeNumber("OPS_PORT", { least: 0, most: 65_535 }),
  USAGE_PORT: wholeNumber("USAGE_PORT", { least: 0, most: 65_535 }),
  USAGE_OPS_PORT: wholeNumber("USAGE_OPS_PORT", { least: 0, most: 65_535 }),
  REDIS_URL: z
    .string()
    .refine(
      (list) =>
        list.split(",").every((text, index) => {
          // The first says for all how to connect; the others may be addresses alone.
          const address = index > 0 && !text.includes("://") ? `redis://${text}` : text;
          return URL.canParse(address) && /^rediss?:$/.test(new URL(address).protocol);
        }),
      {
        message: "must be a redis:// or rediss:// URL, or several separated by commas",
      },
    )
    .optional(),
  REDIS_DURABILITY: oneOf(defaultOf("REDIS_DURABILITY"), ["local", "replica"]),
  STATE_WRITE_SCHEMA: wholeNumber("STATE_WRITE_SCHEMA", { least: OLDEST_WRITABLE, most: SCHEMA_VERSION }),
  OPENAI_API_KEY: z.string().optional(),
  OPENAI_BASE_URL: urlOf(/^https?:$/, "an http:// or https:// URL").default(defaultOf("OPENAI_BASE_URL")),
  MODEL: z.string().default(defaultOf("MODEL")),
  MAX_TOKENS: wholeNumber("MAX_TOKENS", { most: 10_000_000 }),
  MAX_ROUNDS: wholeNumber("MAX_ROUNDS", { most: 1_000 }),
  SESSION_TTL_HOURS: wholeNumber("SESSION_TTL_HOURS", { most: 24 * 366 }),
  RATE_LIMIT: wholeNumber("RATE_LIMIT", { most: 1_000_000_000 }),
  RATE_WINDOW: wholeNumber("RATE_WINDOW", { most: 31_536_000 }),
  OTLP_ENDPOINT: urlOf(/^https?:$/, "an http:// or https:// URL").optional(),
  CONFIG_FILE: z.string().optional(),
  CORS_ORIGINS: z
    .string()
    .default("")
    .transform((list) =>
      list
        .split(",")
        .map((origin) => origin.trim())
        .filter((origin) => origin !== ""),
    )
    .refine((origins) => origins.every((origin) => URL.canParse(origin) && new URL(origin).origin === origin), {
      message: "must be origins such as https://app.example.com, separated by commas; * is not one",
    }),
  LEASE_MS: wholeNumber("LEASE_MS", { least: 100, most: 3_600_000 }),
  DRAIN_MS: wholeNumber("DRAIN_MS", { least: 0, most: LONGEST_MS }),
  MAX_STREAMS_PER_CONNECTION: wholeNumber("MAX_STREAMS_PER_CONNECTION", { most: 1_000_000 }),
  SIDECAR_TOP_USERS: wholeNumber("SIDECAR_TOP_USERS", { least: 0, most: 100_000 }),
  SIDECAR_LAST_SCRAPE_MS: wholeNumber("SIDECAR_LAST_SCRAPE_MS", { least: 0, most: 600_000 }),
  ALERTMANAGER_URL: urlOf(/^https?:$/, "an http:// or https:// URL").optional(),
  ...authEnvironment,
  ...tlsEnvironment,
  REST_DOOR: oneOf(defaultOf("REST_DOOR"), ["false", "true"]),
  VERSION: z
    .string()
    .regex(/^[A-Za-z0-9._+-]{1,64}$/, { error: () => "must be at most 64 characters of [A-Za-z0-9._+-]" })
    .optional(),
  TRACK: oneOf(defaultOf("TRACK"), ["stable", "canary"]),
  LOG_LEVEL: oneOf(defaultOf("LOG_LEVEL"), ["debug", "info", "warn", "error", "silent"]),
});
