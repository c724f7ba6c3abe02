import { readFileSync } from "node:fs";
import { loadAlertSettings } from "../../sidecar/alert-settings.ts";
import { type App, startApp } from "../../src/app.ts";
import { loadConfig } from "../../src/config.ts";
import { siteFolders } from "../../src/package-facts.ts";
import { createLogger } from "../../src/platform/logger.ts";
import { traceFacts } from "../../src/platform/tracing.ts";
import { type SimulatedModel, startSimulatedModel } from "../../src/providers/simulated-model.ts";
import { connectStores, type Stores } from "../../src/stores.ts";
import { startStandalone } from "../../standalone/standalone-app.ts";

/** A service in this process, on free ports, ready to serve. */
export interface TestApp {
  /** `http://127.0.0.1:<port>`: RPCs and the console. */
  readonly url: string;
  /** `http://127.0.0.1:<port>`: /livez, /readyz and /metrics. */
  readonly opsUrl: string;
  readonly app: App;
  /** The model that it calls, and what the model was sent. */
  readonly simulated: SimulatedModel;
  /** What it logged so far, from `debug` on. */
  readonly logs: CapturedLogs;
  /** What keeps its state. */
  readonly stores: Stores;
  /** The metrics as a scrape gets them. */
  metrics(): Promise<string>;
  /** Stops the service, and the model unless it was given. May be called twice. */
  close(): Promise<void>;
}

export interface CapturedLogs {
  /** The lines as they would stand on standard output. */
  text(): string;
  lines(): Readonly<Record<string, unknown>>[];
  /** Lines whose facts are all these. */
  where(facts: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>>[];
}

export interface TestAppOptions {
  /** Variables as `src/config.ts` knows them; they win over what the harness sets. */
  readonly env?: Readonly<Record<string, string>>;
  /** Absent: the embedded store. */
  readonly redisUrl?: string;
  /** Model of the default agent, such as `sim-slow` (`src/providers/simulated-scripts.ts`). Default: one that repeats what it is told. */
  readonly model?: string;
  /** Text of a parley.yaml. */
  readonly yaml?: string;
  /** Path of a parley.yaml in its place. */
  readonly configFile?: string;
  /** A model that several services share; who made it closes it. Default: one of its own. */
  readonly simulated?: SimulatedModel;
  /** Pause between two chunks of the model's answer, in milliseconds. Default 0. */
  readonly chunkDelayMs?: number;
  /** Whether UsageService answers on the same port, as in the standalone. Default: no. */
  readonly withUsage?: boolean;
}

/** Starts the service as `standalone/main.ts` puts it together, but for its output and its ports. */
export async function startTestApp({
  env = {},
  redisUrl,
  model,
  yaml,
  configFile,
  simulated: given,
  chunkDelayMs = 0,
  withUsage = false,
}: TestAppOptions = {}): Promise<TestApp> {
  const simulated = given ?? (await startSimulatedModel({ chunkDelayMs }));
  const text: string[] = [];
  try {
    const config = loadConfig(
      {
        PORT: "0",
        OPS_PORT: "0",
        USAGE_PORT: "0",
        USAGE_OPS_PORT: "0",
        OPENAI_BASE_URL: simulated.baseUrl,
        RATE_LIMIT: "1000000",
        LOG_LEVEL: "debug",
        VERSION: "0.0.0-test",
        ...(model === undefined ? {} : { MODEL: model }),
        ...(redisUrl === undefined ? {} : { REDIS_URL: redisUrl }),
        ...(yaml === undefined ? {} : { CONFIG_FILE: "parley.yaml" }),
        ...(configFile === undefined ? {} : { CONFIG_FILE: configFile }),
        ...env,
      },
      {
        readFile: (path) => (path === configFile ? readFileSync(path, "utf8") : (yaml ?? "")),
        packageVersion: "0.0.0-test",
      },
    );
    const { logLevel: level, version, track } = config;
    const destination = { write: (line: string) => void text.push(line) };
    const logger = createLogger({ level, version, track, mixin: traceFacts, destination });
    const stores = connectStores({ config, logger });
    const parts = { config, logger, stores, simulatedModel: true };
    const whole = withUsage ? await startStandalone({ ...parts, alerts: loadAlertSettings({}) }) : undefined;
    const app = whole?.app ?? (await startApp({ ...parts, siteFolders }));
    await app.checkedOnce;
    let closed: Promise<void> | undefined;
    const lines = () => text.map((line) => JSON.parse(line) as Record<string, unknown>);
    return {
      url: app.url,
      opsUrl: app.opsUrl,
      app,
      simulated,
      logs: {
        text: () => text.join(""),
        lines,
        where: (facts) =>
          lines().filter((line) => Object.entries(facts).every(([name, value]) => line[name] === value)),
      },
      stores,
      metrics: async () => (await fetch(`${app.opsUrl}/metrics`)).text(),
      close: () => {
        closed ??= (whole ?? app).close().finally(() => (given === undefined ? simulated.close() : undefined));
        return closed;
      },
    };
  } catch (error) {
    if (given === undefined) await simulated.close();
    throw error;
  }
}
