import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { loadAlertSettings } from "../sidecar/alert-settings.ts";
import { loadConfig } from "../src/config.ts";
import { packageVersion } from "../src/package-facts.ts";
import { createLogger } from "../src/platform/logger.ts";
import { runUntilSignal } from "../src/platform/process.ts";
import { startTracing, traceFacts } from "../src/platform/tracing.ts";
import { startScriptedModel } from "../src/providers/scripted-model.ts";
import { startSimulatedModel } from "../src/providers/simulated-model.ts";
import { connectStores } from "../src/stores.ts";
import { type Example, readExample } from "./example.ts";
import { startStandalone } from "./standalone-app.ts";

/** Pause between two words of a scripted answer, in milliseconds: about as fast as models write. */
const WORD_DELAY_MS = 40;

// For a laptop and for the first try: everything in one process, the embedded store unless REDIS_URL is set, the
// simulated model unless OPENAI_API_KEY or OPENAI_BASE_URL is. `main.ts approval` has the team of examples/teams/approval, and
// in place of the simulated model one that answers as the example's script says.
const readFile = (path: string): string => readFileSync(path, "utf8");

await runUntilSignal({
  async start() {
    const [exampleName = ""] = parseArgs({ allowPositionals: true }).positionals;
    const example = exampleName === "" ? undefined : readExample(exampleName);
    const hasModel = Boolean(process.env.OPENAI_API_KEY || process.env.OPENAI_BASE_URL);
    const simulated = hasModel ? undefined : await startModel(example);
    const env = {
      LOG_LEVEL: "warn",
      REST_DOOR: "true",
      ...process.env,
      ...(example && { CONFIG_FILE: example.configFile }),
      ...(simulated && { OPENAI_BASE_URL: simulated.baseUrl }),
    };
    const config = loadConfig(env, { readFile, packageVersion: packageVersion() });
    const { version, track, logLevel, otlpEndpoint } = config;
    const logger = createLogger({ level: logLevel, version, track, mixin: traceFacts });
    const tracing = startTracing({ endpoint: otlpEndpoint, serviceName: "parley", version, track, env, logger });
    const standalone = await startStandalone({
      config,
      alerts: loadAlertSettings(env),
      logger,
      stores: connectStores({ config, logger }),
      simulatedModel: simulated !== undefined,
    }).catch(async (error: unknown) => {
      await simulated?.close();
      throw error;
    });
    const { app, sidecar } = standalone;
    process.stdout.write(
      [
        "",
        `  Parley ${version} is at ${app.url}`,
        "",
        simulated === undefined
          ? "  Model:    as configured"
          : `  Model:    ${example === undefined ? "simulated, it repeats what it is told" : "scripted, it answers what the example's README says"}; set OPENAI_API_KEY or OPENAI_BASE_URL for a real one`,
        config.redisUrl === undefined
          ? "  Sessions: in this process, gone when it ends; set REDIS_URL to keep them"
          : "  Sessions: in Redis",
        `  Costs:    ${app.url}/#/costs`,
        `  Docs:     ${app.url}/docs/`,
        `  Usage:    ${sidecar.url}, budgets, prices and the ledger`,
        `  OpenAI:   ${app.url}/v1, for clients of OpenAI's chat completions`,
        `  Ops:      ${app.opsUrl}/readyz and ${app.opsUrl}/metrics`,
        "",
        `  Try:      grpcurl -plaintext -d '{"message":"hello","user_id":"u1"}' ${new URL(app.url).host} parley.chat.v1.ChatService/StreamChat`,
        "",
        "",
      ].join("\n"),
    );
    return {
      async close() {
        await standalone.close();
        await simulated?.close();
        await tracing.shutdown();
        await logger.flush();
      },
    };
  },
});

/** What stands for a language model where none is configured. */
function startModel(example: Example | undefined): Promise<{ readonly baseUrl: string; close(): Promise<void> }> {
  if (example === undefined) return startSimulatedModel();
  return startScriptedModel(example.script, { repeat: true, chunkDelayMs: WORD_DELAY_MS });
}
