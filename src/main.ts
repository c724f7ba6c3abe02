import { readFileSync } from "node:fs";
import { startApp } from "./app.ts";
import { loadConfig } from "./config.ts";
import { packageVersion, siteFolders } from "./package-facts.ts";
import { createLogger } from "./platform/logger.ts";
import { runUntilSignal } from "./platform/process.ts";
import { startTracing, traceFacts } from "./platform/tracing.ts";

// The production entry: the service on Redis.
const readFile = (path: string): string => readFileSync(path, "utf8");

await runUntilSignal({
  async start() {
    const config = loadConfig(process.env, { readFile, packageVersion: packageVersion() });
    const { version, track, logLevel, otlpEndpoint } = config;
    if (config.redisUrl === undefined) {
      throw new Error(
        "REDIS_URL is not set: the service keeps its sessions in Redis. To try Parley without one: make run.",
      );
    }
    const logger = createLogger({ level: logLevel, version, track, mixin: traceFacts });
    const tracing = startTracing({
      endpoint: otlpEndpoint,
      serviceName: "parley",
      version,
      track,
      env: process.env,
      logger,
    });
    const app = await startApp({ config, logger, siteFolders });
    logger.info({ url: app.url, ops_url: app.opsUrl }, "serving");
    return {
      reload: () => app.reload(),
      async close() {
        logger.info({}, "shutting down");
        await app.close();
        await tracing.shutdown();
        await logger.flush();
      },
    };
  },
});
