import { readFileSync } from "node:fs";
import { UsageService } from "../gen/parley/usage/v1/usage_service_pb.js";
import type { AccountStore } from "../src/accounts/account-store.ts";
import { createPriceTable } from "../src/accounts/price-table.ts";
import type { ApiKeyStore } from "../src/identity/api-keys.ts";
import { authenticatorOf } from "../src/identity/authenticators.ts";
import { createLifecycle } from "../src/platform/lifecycle.ts";
import type { Logger } from "../src/platform/logger-port.ts";
import { type OpsPageContent, startOpsServer } from "../src/platform/ops-server.ts";
import { NotReady, startReadiness } from "../src/platform/readiness.ts";
import { watchTlsFiles } from "../src/platform/tls-files.ts";
import { errorDetailFiles } from "../src/rpc/error-mapping.ts";
import { createHealthState, registerHealth } from "../src/rpc/health-handlers.ts";
import { type HttpHandler, type StreamHandler, startHttpServer } from "../src/rpc/http-server.ts";
import { createInterceptors, observeRefused } from "../src/rpc/interceptors.ts";
import { registerReflection } from "../src/rpc/reflection-handlers.ts";
import { createRpcHandler } from "../src/rpc/routes.ts";
import { startAccountWatch } from "./account-watch.ts";
import { renderAlertRules } from "./alert-rules.ts";
import { startAnomalyWatch } from "./anomalies.ts";
import type { SidecarConfig } from "./config.ts";
import { createCostMetrics } from "./cost-metrics.ts";
import { startLedgerConsumer } from "./ledger-consumer.ts";
import { createSidecarMetrics } from "./request-metrics.ts";
import type { Rollups } from "./rollups.ts";
import { createScrapes } from "./scrapes.ts";
import { createUsageCsv, USAGE_CSV_PATH } from "./usage-csv.ts";
import { createUsageHandlers } from "./usage-handlers.ts";

/** A running sidecar. */
export interface Sidecar {
  /** Where UsageService is called. */
  readonly url: string;
  /** Where operators look. */
  readonly opsUrl: string;
  /** Resolves when it is ready to serve, or has been told why it is not yet. */
  readonly checkedOnce: Promise<void>;
  /** What its port hands requests to, for a process that has another port for people. */
  readonly rpc: { readonly handler: HttpHandler; readonly streamHandler: StreamHandler };
  close(): Promise<void>;
}

/** Calls that run when it is told to stop get this long to end, in milliseconds. */
const CALLS_END_MS = 5_000;

/** Puts the sidecar together on accounts and keys that somebody else opened, and closes. Rejects with a sentence when a port cannot be had. */
export async function startSidecar({
  config,
  accounts,
  rollups,
  apiKeys,
  ping,
  logger,
}: {
  config: Omit<SidecarConfig, "redisUrl" | "redisDurability" | "budgets" | "logLevel">;
  accounts: AccountStore;
  /** Those of these accounts. */
  rollups: Rollups;
  apiKeys: ApiKeyStore;
  /** Resolves when the store answers; rejects with a sentence why it must not be used. */
  ping(): Promise<void>;
  logger: Logger;
}): Promise<Sidecar> {
  const lifecycle = createLifecycle();
  try {
    const { host, version, track, maxStreamsPerConnection, corsOrigins, models } = config;
    const metrics = createSidecarMetrics({ version, track });
    const readiness = startReadiness({
      checks: [{ name: "store", required: "always", check: () => ping().catch(sayWhy) }],
    });
    lifecycle.onClose("readiness", () => readiness.stop());
    const health = createHealthState([UsageService.typeName]);
    readiness.onCheck(({ ready }) => health.setAll(ready));
    readiness.onChange(({ ready }) => logger.info({ ready }, ready ? "ready" : "not ready"));

    const prices = createPriceTable({ ...config.prices, models });
    const scrapes = createScrapes();
    const cost = createCostMetrics({ ...metrics, topUsers: config.topUsers });
    const { alertmanagerUrl, alerts } = config;
    const anomalies = startAnomalyWatch({ rollups, metrics: cost, logger, alertmanagerUrl, alerts });
    lifecycle.onClose("anomalies", () => anomalies.stop());
    const consumer = startLedgerConsumer({
      rollups,
      onApplied(tenant, { entries, suspicious }) {
        cost.applied(tenant, entries);
        scrapes.counted();
        if (suspicious) anomalies.look(tenant);
      },
      logger,
    });
    lifecycle.onClose("ledger consumer", () => consumer.stop());
    const watch = startAccountWatch({ accounts, rollups, metrics: cost, logger });
    lifecycle.onClose("account watch", () => watch.stop());
    const usage = createUsageHandlers({ accounts, prices, rollups, catchUp: (tenant) => consumer.catchUp(tenant) });
    const authenticate = authenticatorOf(config.auth, { keys: apiKeys });
    const csv = createUsageCsv({ accounts, authenticate, metrics, logger });
    const rpc = createRpcHandler({
      corsOrigins,
      interceptors: createInterceptors({ logger, metrics, authenticate }),
      onRefused: observeRefused({ logger, metrics }),
      routes(router) {
        router.service(UsageService, usage);
        registerHealth(router, health);
        registerReflection(router, [UsageService], { alsoKnown: errorDetailFiles });
      },
      fallback(request, response) {
        if (request.url?.split("?", 1)[0] === USAGE_CSV_PATH) return csv(request, response);
        response.statusCode = 404;
        response.setHeader("content-type", "text/plain; charset=utf-8");
        response.end("There is nothing here. The services are listed by gRPC server reflection.\n");
      },
    });

    const rules = renderAlertRules(alerts);
    const ops = await startOpsServer({
      host,
      port: config.opsPort,
      readyz: () => readiness.current(),
      metrics: async () => {
        await watch.lookAtLedgers();
        return scrapes.of(() => metrics.render());
      },
      contentType: metrics.contentType,
      pages: { "/rules": async () => asYaml(rules) },
    });
    lifecycle.onClose("ops server", () => ops.close());
    const { lastScrapeMs } = config;
    const lastScrape = async (): Promise<void> => {
      // What it would count from now on, another one counts as well.
      await consumer.stop();
      await scrapes.last(lastScrapeMs);
    };
    lifecycle.onClose("last scrape", lastScrape, { deadlineMs: lastScrapeMs + CALLS_END_MS });
    const tls =
      config.tls &&
      watchTlsFiles({
        ...config.tls,
        readFile: (path) => readFileSync(path, "utf8"),
        onProblem: (problem) => logger.warn({ problem }, "certificate not renewed"),
      });
    if (tls !== undefined) lifecycle.onClose("certificate", () => tls.stop());
    const server = await startHttpServer({ host, port: config.port, ...rpc, maxStreamsPerConnection, tls });
    const closeServer = (): Promise<void> => {
      readiness.drain();
      health.end();
      return server.close(CALLS_END_MS);
    };
    lifecycle.onClose("server", closeServer, { deadlineMs: 2 * CALLS_END_MS });
    return {
      url: server.url,
      opsUrl: server.url.replace(/^https/, "http").replace(/:\d+$/, `:${ops.port}`),
      checkedOnce: readiness.checkedOnce,
      rpc,
      close: () => lifecycle.close(),
    };
  } catch (error) {
    await lifecycle.close().catch(() => undefined);
    throw error;
  }
}

function asYaml(body: string): OpsPageContent {
  return { status: 200, contentType: "application/yaml; charset=utf-8", body };
}

/** A store's failure as /readyz may show it. */
function sayWhy(error: unknown): never {
  const unavailable = !(error instanceof Error) || error.message === "STORE_UNAVAILABLE";
  throw new NotReady(unavailable ? "the store does not answer" : error.message, { cause: error });
}
