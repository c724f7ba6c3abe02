import { readFileSync } from "node:fs";
import { ChatService, OnDisconnect } from "../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../gen/parley/chat/v1/session_service_pb.js";
import { createPriceTable } from "./accounts/price-table.ts";
import type { Config } from "./config.ts";
import { startConfigReload } from "./config-reload.ts";
import { Failure } from "./failure.ts";
import { authenticatorOf } from "./identity/authenticators.ts";
import { createLiveDefinitions } from "./live-definitions.ts";
import { createMetrics } from "./metrics.ts";
import type { SiteFolders } from "./package-facts.ts";
import { createLifecycle } from "./platform/lifecycle.ts";
import type { Logger } from "./platform/logger-port.ts";
import { startOpsServer } from "./platform/ops-server.ts";
import { NOT_CHECKED, NotReady, type ReadinessMonitor, startReadiness } from "./platform/readiness.ts";
import { watchTlsFiles } from "./platform/tls-files.ts";
import { createUndiciTransport } from "./providers/undici-transport.ts";
import { createChatHandlers } from "./rpc/chat-handlers.ts";
import { createConsoleFiles } from "./rpc/console-files.ts";
import { createLocalCalls, type RpcRoutes } from "./rpc/direct-call.ts";
import { createDocsFiles } from "./rpc/docs-files.ts";
import { serveDoors } from "./rpc/doors.ts";
import { errorDetailFiles } from "./rpc/error-mapping.ts";
import { createHealthState, registerHealth } from "./rpc/health-handlers.ts";
import { startHttpServer } from "./rpc/http-server.ts";
import { createInterceptors, observeRefused } from "./rpc/interceptors.ts";
import { createOpenAiDoor } from "./rpc/openai-door.ts";
import { servePages } from "./rpc/pages.ts";
import { registerReflection } from "./rpc/reflection-handlers.ts";
import { createRestDoor } from "./rpc/rest-door.ts";
import { routerOptions } from "./rpc/router-options.ts";
import { createRpcHandler } from "./rpc/routes.ts";
import { type ServiceBeside, servedBeside } from "./rpc/services-by-prefix.ts";
import { createSessionHandlers } from "./rpc/session-handlers.ts";
import { connectStores, type Stores } from "./stores.ts";
import { createTurnObserver } from "./turn-observer.ts";
import { startLostCalls } from "./turns/lost-calls.ts";
import { startTurnRecovery } from "./turns/turn-recovery.ts";
import { TurnRunner } from "./turns/turn-runner.ts";

/** A running service. */
export interface App {
  /** Where a person opens the console and clients call. */
  readonly url: string;
  /** Where operators look. */
  readonly opsUrl: string;
  /** Resolves when the service is ready to serve, or has been told why it is not yet. */
  readonly checkedOnce: Promise<void>;
  /** Reads the configuration file again now; by itself it is looked at every few seconds. */
  reload(): void;
  /** Takes no new turns, lets the running ones end, and puts everything away. */
  close(): Promise<void>;
}

/** Puts the service together and starts it. Rejects with a sentence when a port cannot be had. */
export async function startApp({
  config,
  logger,
  siteFolders,
  simulatedModel = false,
  stores = connectStores({ config, logger }),
  beside,
}: {
  config: Config;
  logger: Logger;
  siteFolders: SiteFolders;
  /** Whether the configured endpoint is the simulated one; the console says so. */
  simulatedModel?: boolean;
  /** What keeps state, where others of the process use it too. The app closes it. Default: what the configuration names. */
  stores?: Stores;
  /** Another service of this process that answers on the same port; whoever started it stops it. */
  beside?: ServiceBeside;
}): Promise<App> {
  const lifecycle = createLifecycle();
  try {
    const { version, track } = config;
    const metrics = createMetrics({ version, track });
    const { store, rateLimiter, accounts, apiKeys } = stores;
    lifecycle.onClose("store", () => store.close());
    await refuseUnfit(store);
    metrics.collectActiveSessions(() => store.countActiveSessions());

    const transport = createUndiciTransport();
    lifecycle.onClose("model connections", () => transport.close());
    const definitions = createLiveDefinitions({ config, transport, metrics, logger });
    lifecycle.onClose("models and tool servers", () => definitions.close(), { deadlineMs: TOOL_SERVERS_END_MS });
    const reload = startConfigReload({ config, definitions, metrics, logger });
    lifecycle.onClose("configuration file", () => reload.stop());

    const readiness = startReadiness({
      checks: [
        { name: "store", required: "always", check: () => store.ping().catch(sayWhy) },
        { name: "model", required: "once", check: (signal) => definitions.probe(signal).catch(noModel) },
      ],
    });
    lifecycle.onClose("readiness", () => readiness.stop());
    const health = createHealthState([ChatService.typeName, SessionService.typeName]);
    readiness.onCheck(({ ready, draining, checks }) => {
      health.set("", ready);
      health.set(ChatService.typeName, ready);
      // Sessions need no model.
      health.set(SessionService.typeName, !draining && checks.store?.ok === true);
      metrics.storeChecked(checks.store?.ok === true);
    });
    logFailedChecks(readiness, logger);
    readiness.onChange(({ ready }) => logger.info({ ready }, ready ? "ready" : "not ready"));

    const observer = createTurnObserver({ logger, metrics });
    const { leaseMs } = config;
    const prices = createPriceTable({ ...config.prices, models: [...config.models.keys()] });
    const runner = new TurnRunner({ store, accounts, prices, definitions, leaseMs, observer });
    const lostCalls = startLostCalls({ accounts, store, onError: logRecovery(logger) });
    lifecycle.onClose("lost calls", () => lostCalls.stop());
    const recovery = startTurnRecovery({ store, runner, onError: logRecovery(logger) });
    lifecycle.onClose("recovery", () => recovery.stop());
    const leaving = new AbortController();
    const chat = createChatHandlers({
      store,
      leaving: leaving.signal,
      maxTokens: config.maxTokens,
      defaultOnDisconnect: OnDisconnect.CONTINUE,
      firstText: metrics.firstToken,
      admission: {
        store,
        runner,
        rateLimiter,
        definitions,
        release: { version, track },
        maxTokens: config.maxTokens,
        draining: () => readiness.current().draining,
        queueChanged: metrics.turnsQueued,
      },
      preview: {
        store,
        accounts,
        prices,
        rateLimiter,
        definitions,
        release: { version },
        maxTokens: config.maxTokens,
      },
    });
    const sessions = createSessionHandlers({ store, version });
    const authenticate = authenticatorOf(config.auth, { keys: apiKeys });
    const interceptors = createInterceptors({ logger, metrics, authenticate });
    const onRefused = observeRefused({ logger, metrics });
    const routes: RpcRoutes = (router) => {
      router.service(ChatService, chat).service(SessionService, sessions);
      registerHealth(router, health);
      registerReflection(router, [ChatService, SessionService], { alsoKnown: errorDetailFiles });
    };
    const calls = createLocalCalls({ routes, options: routerOptions({ interceptors, onRefused }) });
    const rpc = createRpcHandler({
      corsOrigins: config.corsOrigins,
      interceptors,
      onRefused,
      routes,
      fallback: serveDoors({
        openAi: createOpenAiDoor({
          calls,
          teams: () => [...definitions.current.teams.keys()],
          rateLimit: config.rateLimit.limit,
          authenticate,
          metrics,
          logger,
          onRefused,
        }),
        rest: !config.restDoor
          ? undefined
          : createRestDoor({
              calls,
              health: () => ({
                storeAnswers: readiness.current().checks.store?.ok === true,
                inRedis: config.redisUrl !== undefined,
              }),
              metrics: () => metrics.render(),
              metricsContentType: metrics.contentType,
              logger,
              onRefused,
            }),
        otherwise: servePages(
          createDocsFiles({ directory: siteFolders.docs }),
          createConsoleFiles({
            directory: siteFolders.console,
            config: () => {
              const { teams, defaultTeam } = definitions.current;
              return {
                version,
                track,
                simulatedModel,
                model: teams.get(defaultTeam)?.agents[0].model ?? "",
                teams: [...teams.keys()],
                agents: Object.fromEntries([...teams].map(([name, team]) => [name, team.agents.map(nameOf)])),
                embeddedStore: config.redisUrl === undefined,
              };
            },
          }),
        ),
      }),
    });

    const ops = await startOpsServer({
      host: config.host,
      port: config.opsPort,
      readyz: () => readiness.current(),
      metrics: () => metrics.render(),
      contentType: metrics.contentType,
    });
    lifecycle.onClose("ops server", () => ops.close());
    const { host, port, maxStreamsPerConnection, drainMs } = config;
    const tls =
      config.tls &&
      watchTlsFiles({
        ...config.tls,
        readFile: (path) => readFileSync(path, "utf8"),
        onProblem: (problem) => logger.warn({ problem }, "certificate not renewed"),
      });
    if (tls !== undefined) lifecycle.onClose("certificate", () => tls.stop());
    const server = await startHttpServer({ host, port, ...servedBeside(rpc, beside), maxStreamsPerConnection, tls });
    // Last in, first out: readiness goes off, turns end while their readers are still connected, then the port closes.
    const closeServer = (): Promise<void> => {
      health.end();
      return server.close(STREAMS_END_MS);
    };
    lifecycle.onClose("server", closeServer, { deadlineMs: STREAMS_END_MS * 2 });
    lifecycle.onClose(
      "turns",
      async () => {
        readiness.drain();
        // What this process gives up is for others to take.
        await recovery.stop();
        server.stopAccepting();
        await runner.drain(drainMs);
        leaving.abort(new Failure("DRAINING", { retryAfterMs: READ_ON_RETRY_MS }));
      },
      { deadlineMs: drainMs + STREAMS_END_MS },
    );
    return {
      url: server.url,
      opsUrl: server.url.replace(/^https/, "http").replace(/:\d+$/, `:${ops.port}`),
      checkedOnce: readiness.checkedOnce,
      reload: () => reload.reload(),
      close: () => lifecycle.close(),
    };
  } catch (error) {
    await lifecycle.close().catch(() => undefined);
    throw error;
  }
}

function nameOf({ name }: { readonly name: string }): string {
  return name;
}

/** Readers of ended turns get this long to read their last events, in milliseconds. */
const STREAMS_END_MS = 5_000;

/** Tool servers that are processes of ours get this long to end before they are killed, in milliseconds. */
const TOOL_SERVERS_END_MS = 6_000;

/** What readers of other processes' turns are advised to wait before they read on elsewhere, in milliseconds. */
const READ_ON_RETRY_MS = 100;

/** A store that does not answer is the readiness check's to tell; everything else is worth a line. */
function logRecovery(logger: Logger): (error: unknown) => void {
  return (error) => {
    if (error instanceof Failure && error.reason === "STORE_UNAVAILABLE") return;
    logger.error({ error }, "lost turns or calls could not be looked after");
  };
}

/** Says in the log why a check fails, once for each reason: a process that never becomes ready has told why. */
function logFailedChecks(readiness: ReadinessMonitor, logger: Logger): void {
  const told = new Map<string, string>();
  readiness.onCheck(({ checks }) => {
    for (const [check, { ok, reason }] of Object.entries(checks)) {
      if (!ok && reason !== NOT_CHECKED.reason && told.get(check) !== reason)
        logger.warn({ check, reason }, "check failed");
      told.set(check, ok ? "" : reason);
    }
  });
}

/** Rejects with why a store must not be used, where it says so. One that does not answer is waited for: see readiness. */
async function refuseUnfit(store: { ping(): Promise<void> }): Promise<void> {
  await store.ping().catch((error: unknown) => {
    if (!doesNotAnswer(error)) throw error;
  });
}

/** A store's failure as /readyz may show it. */
function sayWhy(error: unknown): never {
  const reason = error instanceof Error && !doesNotAnswer(error) ? error.message : "the session store does not answer";
  throw new NotReady(reason, { cause: error });
}

function doesNotAnswer(error: unknown): boolean {
  return error instanceof Failure && error.reason === "STORE_UNAVAILABLE";
}

function noModel(error: unknown): never {
  throw new NotReady("no model endpoint has answered", { cause: error });
}
