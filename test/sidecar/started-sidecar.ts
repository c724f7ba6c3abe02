import { createClient, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { UsageService } from "../../gen/parley/usage/v1/usage_service_pb.js";
import { type Sidecar, startSidecar } from "../../sidecar/app.ts";
import { loadSidecarConfig } from "../../sidecar/config.ts";
import type { Rollups } from "../../sidecar/rollups.ts";
import type { AccountStore } from "../../src/accounts/account-store.ts";
import { createMemoryApiKeyStore } from "../../src/identity/memory-api-key-store.ts";
import { createLogger } from "../../src/platform/logger.ts";
import type { Logger } from "../../src/platform/logger-port.ts";

/** A sidecar in this process, on ports that are free. */
export async function startTestSidecar({
  accounts,
  rollups,
  env = {},
  logger = createLogger({ level: "silent", version: "0.0.0-test", track: "stable" }),
}: {
  accounts: AccountStore;
  rollups: Rollups;
  env?: Record<string, string>;
  logger?: Logger;
}): Promise<{
  readonly sidecar: Sidecar;
  readonly apiKeys: ReturnType<typeof createMemoryApiKeyStore>;
  usage(key?: string): ReturnType<typeof clientOf>;
  /** Its metrics, as Prometheus gets them. */
  metrics(): Promise<string>;
}> {
  const config = loadSidecarConfig(
    { REDIS_URL: "redis://nobody", USAGE_PORT: "0", USAGE_OPS_PORT: "0", ...env },
    { readFile: () => "", packageVersion: "0.0.0-test" },
  );
  const apiKeys = createMemoryApiKeyStore();
  const sidecar = await startSidecar({ config, accounts, rollups, apiKeys, ping: async () => {}, logger });
  return {
    sidecar,
    apiKeys,
    usage: (key) => clientOf(sidecar, key),
    metrics: async () => (await fetch(`${sidecar.opsUrl}/metrics`)).text(),
  };
}

/** A client of a sidecar's UsageService, with an API key or without. */
export function clientOf(sidecar: Sidecar, key?: string) {
  const authorize: Interceptor = (next) => (request) => {
    if (key !== undefined) request.header.set("authorization", `Bearer ${key}`);
    return next(request);
  };
  return createClient(
    UsageService,
    createConnectTransport({ baseUrl: sidecar.url, httpVersion: "2", interceptors: [authorize] }),
  );
}
