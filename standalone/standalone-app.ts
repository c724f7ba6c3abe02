import type { AlertSettings } from "../sidecar/alert-settings.ts";
import { type Sidecar, startSidecar } from "../sidecar/app.ts";
import type { Rollups } from "../sidecar/rollups.ts";
import { createMemoryRollups } from "../sidecar/rollups-memory.ts";
import { createRedisRollups } from "../sidecar/rollups-redis.ts";
import { type App, startApp } from "../src/app.ts";
import type { Config } from "../src/config.ts";
import { siteFolders } from "../src/package-facts.ts";
import type { Logger } from "../src/platform/logger-port.ts";
import type { Stores } from "../src/stores.ts";

/** Service and sidecar in one process. */
export interface Standalone {
  readonly app: App;
  readonly sidecar: Sidecar;
  close(): Promise<void>;
}

/** Begins the paths of the sidecar's services; a mesh routes by it to the sidecar. */
const USAGE_PREFIX = "/parley.usage.v1.";

/** Starts both on the same stores, which it closes. UsageService answers on the service's port too: the console asks there. */
export async function startStandalone({
  config,
  alerts,
  logger,
  stores,
  simulatedModel,
}: {
  config: Config;
  /** What the sidecar's alert rules are rendered from. */
  alerts: AlertSettings;
  logger: Logger;
  stores: Stores;
  simulatedModel: boolean;
}): Promise<Standalone> {
  const sidecar = await startSidecar({
    config: {
      ...config,
      port: config.usagePort,
      opsPort: config.usageOpsPort,
      models: [...config.models.keys()],
      alerts,
    },
    accounts: stores.accounts,
    rollups: rollupsOf(stores),
    apiKeys: stores.apiKeys,
    ping: () => stores.store.ping(),
    logger,
  }).catch(async (error: unknown) => {
    await stores.store.close();
    throw error;
  });
  const beside = { ...sidecar.rpc, prefix: USAGE_PREFIX };
  const app = await startApp({ config, logger, siteFolders, simulatedModel, stores, beside }).catch(
    async (error: unknown) => {
      await sidecar.close();
      throw error;
    },
  );
  return {
    app,
    sidecar,
    async close() {
      await sidecar.close();
      await app.close();
    },
  };
}

function rollupsOf({ accounts, connection }: Stores): Rollups {
  if (connection === undefined) return createMemoryRollups({ accounts });
  return createRedisRollups({ connection, accounts, consumer: crypto.randomUUID() });
}
