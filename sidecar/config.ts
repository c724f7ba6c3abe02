import * as z from "zod";
import { type MoneyYaml, parseMoneyYaml } from "../src/accounts/money-yaml.ts";
import { type AuthConfig, authEnvironment, authProblems, readAuth } from "../src/identity/auth-environment.ts";
import { ConfigError, givenOf, isLoopback, oneOf, urlOf, wholeNumber } from "../src/platform/environment.ts";
import { readTls, type TlsConfig, tlsEnvironment, tlsProblems } from "../src/platform/tls-environment.ts";
import { type AlertSettings, alertEnvironment, readAlerts } from "./alert-settings.ts";

/** All that the sidecar is told from outside. Frozen. */
export interface SidecarConfig extends MoneyYaml {
  readonly host: string;
  readonly port: number;
  readonly opsPort: number;
  readonly redisUrl: string;
  /** As the service has it: budgets and repriced rows wait for a replica too. */
  readonly redisDurability: "local" | "replica";
  readonly auth: AuthConfig;
  readonly tls: TlsConfig | undefined;
  readonly corsOrigins: readonly string[];
  readonly maxStreamsPerConnection: number;
  /** Users that have a label of their own in the metrics. */
  readonly topUsers: number;
  /** How long, when it is told to stop, it waits to be scraped of what it has counted since the last scrape, in milliseconds. */
  readonly lastScrapeMs: number;
  /** Where anomalies are posted; absent: nowhere. */
  readonly alertmanagerUrl: string | undefined;
  readonly version: string;
  readonly track: string;
  /** What the alert rules at /rules are rendered from. */
  readonly alerts: AlertSettings;
  readonly logLevel: "debug" | "info" | "warn" | "error" | "silent";
}

const environmentSchema = z.object({
  HOST: z.string().default("127.0.0.1"),
  USAGE_PORT: wholeNumber({ standard: "8081", least: 0, most: 65_535 }),
  USAGE_OPS_PORT: wholeNumber({ standard: "9091", least: 0, most: 65_535 }),
  REDIS_URL: z.string({ error: () => "must be set: the ledger is in Redis" }),
  REDIS_DURABILITY: oneOf("local", ["local", "replica"]),
  CONFIG_FILE: z.string().optional(),
  MODEL: z.string().default("gpt-4"),
  CORS_ORIGINS: z
    .string()
    .default("")
    .transform((list) => list.split(",").flatMap((origin) => origin.trim() || [])),
  MAX_STREAMS_PER_CONNECTION: wholeNumber({ standard: "1000", most: 1_000_000 }),
  SIDECAR_TOP_USERS: wholeNumber({ standard: "100", least: 0, most: 100_000 }),
  SIDECAR_LAST_SCRAPE_MS: wholeNumber({ standard: "0", least: 0, most: 600_000 }),
  ALERTMANAGER_URL: urlOf(/^https?:$/, "an http:// or https:// URL").optional(),
  ...authEnvironment,
  ...tlsEnvironment,
  ...alertEnvironment,
  VERSION: z.string().optional(),
  TRACK: oneOf("stable", ["stable", "canary"]),
  LOG_LEVEL: oneOf("info", ["debug", "info", "warn", "error", "silent"]),
});

/** Reads the environment and the file that CONFIG_FILE names. Reports every problem at once, by name, as one ConfigError. */
export function loadSidecarConfig(
  env: Readonly<Record<string, string | undefined>>,
  { readFile, packageVersion }: { readFile(path: string): string; packageVersion: string },
): SidecarConfig {
  const given = givenOf(env);
  const parsed = environmentSchema.safeParse(given);
  const problems = parsed.success
    ? []
    : parsed.error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`);
  problems.push(...authProblems(given, { isExposed: !isLoopback(given.HOST ?? "127.0.0.1") }));
  problems.push(...tlsProblems(given, readFile));
  let text = "";
  try {
    if (given.CONFIG_FILE !== undefined) text = readFile(given.CONFIG_FILE);
  } catch {
    problems.push(`CONFIG_FILE: cannot read ${given.CONFIG_FILE}`);
  }
  const file = parseMoneyYaml(text, given.CONFIG_FILE ?? "parley.yaml");
  problems.push(...file.problems);
  if (!parsed.success || file.value === undefined || problems.length > 0) throw new ConfigError(problems);
  const values = parsed.data;
  return Object.freeze({
    host: values.HOST,
    port: values.USAGE_PORT,
    opsPort: values.USAGE_OPS_PORT,
    redisUrl: values.REDIS_URL,
    redisDurability: values.REDIS_DURABILITY,
    auth: readAuth(values),
    tls: readTls(values),
    prices: file.value.prices,
    budgets: file.value.budgets,
    models: [...new Set([...file.value.models, values.MODEL])],
    corsOrigins: values.CORS_ORIGINS,
    maxStreamsPerConnection: values.MAX_STREAMS_PER_CONNECTION,
    topUsers: values.SIDECAR_TOP_USERS,
    lastScrapeMs: values.SIDECAR_LAST_SCRAPE_MS,
    alertmanagerUrl: values.ALERTMANAGER_URL,
    version: values.VERSION ?? packageVersion,
    track: values.TRACK,
    alerts: readAlerts(values),
    logLevel: values.LOG_LEVEL,
  });
}
