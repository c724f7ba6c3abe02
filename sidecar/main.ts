import { readFileSync } from "node:fs";
import { configuredBudgets } from "../src/accounts/budget-lookup.ts";
import { createRedisAccountStore } from "../src/accounts/redis-account-store.ts";
import { createRedisApiKeyStore } from "../src/identity/redis-api-key-store.ts";
import { packageVersion } from "../src/package-facts.ts";
import { createLogger } from "../src/platform/logger.ts";
import { runUntilSignal } from "../src/platform/process.ts";
import { traceFacts } from "../src/platform/tracing.ts";
import { connectRedis } from "../src/store/redis-connection.ts";
import { startSidecar } from "./app.ts";
import { loadSidecarConfig } from "./config.ts";
import { createRedisRollups } from "./rollups-redis.ts";

// The sidecar as its own process, on Redis.
const readFile = (path: string): string => readFileSync(path, "utf8");

await runUntilSignal({
  async start() {
    const config = loadSidecarConfig(process.env, { readFile, packageVersion: packageVersion() });
    const { version, track, logLevel: level, redisUrl, redisDurability: durability, budgets } = config;
    const logger = createLogger({ level, version, track, mixin: traceFacts });
    const connection = connectRedis(redisUrl, {
      durability,
      onError: (problem) => logger.warn({ problem }, "redis connection failed"),
      onWarning: (sentence) => logger.warn({}, sentence),
    });
    const accounts = createRedisAccountStore({ connection, budgets: configuredBudgets(budgets) });
    const sidecar = await startSidecar({
      config,
      accounts,
      rollups: createRedisRollups({ connection, accounts, consumer: crypto.randomUUID() }),
      apiKeys: createRedisApiKeyStore(connection),
      ping: () => connection.ping(),
      logger,
    }).catch(async (error: unknown) => {
      await connection.close();
      throw error;
    });
    logger.info({ url: sidecar.url, ops_url: sidecar.opsUrl }, "serving");
    return {
      async close() {
        logger.info({}, "shutting down");
        await sidecar.close();
        await connection.close();
        await logger.flush();
      },
    };
  },
});
