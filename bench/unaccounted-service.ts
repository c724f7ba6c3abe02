import { readFileSync } from "node:fs";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { AccountStore } from "../src/accounts/account-store.ts";
import { startApp } from "../src/app.ts";
import { loadConfig } from "../src/config.ts";
import { packageVersion, siteFolders } from "../src/package-facts.ts";
import { createLogger } from "../src/platform/logger.ts";
import { startTracing, traceFacts } from "../src/platform/tracing.ts";
import { connectStores } from "../src/stores.ts";

/**
 * The service as `src/main.ts` starts it, with accounts that admit every call and write nothing down: what the accounts cost
 * is the difference. There is no such switch in the product.
 */

const readFile = (path: string): string => readFileSync(path, "utf8");
const config = loadConfig(process.env, { readFile, packageVersion: packageVersion() });
const { version, track, logLevel, otlpEndpoint: endpoint } = config;
const logger = createLogger({ level: logLevel, version, track, mixin: traceFacts });
startTracing({ endpoint, serviceName: "parley", version, track, env: process.env, logger });

const stores = connectStores({ config, logger });
const nothing: Pick<AccountStore, "hold" | "start" | "settle" | "release" | "expired"> = {
  hold: async () => ({ state: "held", holdTimeMs: Date.now(), wouldRefuse: [] }),
  start: async () => "started",
  settle: async (record) => ({ state: "settled", record: { ...record, holdTime: timestampFromMs(Date.now()) } }),
  release: async () => undefined,
  expired: async () => [],
};
const app = await startApp({
  config,
  logger,
  siteFolders,
  stores: { ...stores, accounts: { ...stores.accounts, ...nothing } },
});
process.once("SIGTERM", () => void app.close().finally(() => process.exit()));
