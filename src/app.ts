import { ChatService, OnDisconnect } from "../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../gen/parley/chat/v1/session_service_pb.js";
import type { Config } from "./config.ts";
import { createMetrics } from "./metrics.ts";
import { createModels } from "./models.ts";
import { createLifecycle } from "./platform/lifecycle.ts";
import type { Logger } from "./platform/logger-port.ts";
import { startOpsServer } from "./platform/ops-server.ts";
import { NotReady, startReadiness } from "./platform/readiness.ts";
import { createUndiciTransport } from "./providers/undici-transport.ts";
import { createChatHandlers } from "./rpc/chat-handlers.ts";
import { createConsoleFiles } from "./rpc/console-files.ts";
import { errorDetailFiles } from "./rpc/error-mapping.ts";
import { createHealthState, registerHealth } from "./rpc/health-handlers.ts";
import { startHttpServer } from "./rpc/http-server.ts";
import { createInterceptors, observeRefused } from "./rpc/interceptors.ts";
import { servePages } from "./rpc/pages.ts";
import { registerReflection } from "./rpc/reflection-handlers.ts";
import { createRpcHandler } from "./rpc/routes.ts";
import { createSessionHandlers } from "./rpc/session-handlers.ts";
import { connectStores } from "./stores.ts";
import { createTurnObserver } from "./turn-observer.ts";
import { TurnRunner } from "./turns/turn-runner.ts";

/** A running service. */
export interface App {
  /** Where a person opens the console and clients call. */
  readonly url: string;
  /** Where operators look. */
  readonly opsUrl: string;
  /** Resolves when the service is ready to serve, or has been told why it is not yet. */
  readonly checkedOnce: Promise<void>;
  /** Takes no new turns, lets the running ones end, and puts everything away. */
  close(): Promise<void>;
}

/** Puts the service together and starts it. Rejects with a sentence when a port cannot be had. */
export async function startApp({
  config,
  logger,
  consoleFolder,
  simulatedModel = false,
}: {
  config: Config;
  logger: Logger;
  /** Folder of the built console. */
  consoleFolder: string;
  /** Whether the configured endpoint is the simulated one; the console says so. */
  simulatedModel?: boolean;
}): Promise<App> {
  const lifecycle = createLifecycle();
  try {
    const { version, track } = config;
    const metrics = createMetrics({ version, track, models: [...config.models.keys()] });
    const { store, rateLimiter } = connectStores({ config, logger });
    lifecycle.onClose("store", () => store.close());
    metrics.collectActiveSessions(() => store.countActiveSessions());

    const transport = createUndiciTransport();
    lifecycle.onClose("model connections", () => transport.close());
    const models = createModels({ config, transport, metrics, logger });
    lifecycle.onClose("breakers", () => models.close());

    const readiness = startReadiness({
      checks: [
        { name: "store", required: "always", check: () => store.ping().catch(sayWhy) },
        { name: "model", required: "once", check: (signal) => models.probe(signal).catch(noModel) },
      ],
    });
    lifecycle.onClose("readiness", () => readiness.stop());
    const health = createHealthState([ChatService.typeName, SessionService.typeName]);
    readiness.onCheck(({ ready, draining, checks }) => {
      health.set("", ready);
      health.set(ChatService.typeName, ready);
      // Sessions need no model.
      health.set(SessionService.typeName, !draining && checks.store?.ok === true);
    });
    readiness.onChange(({ ready }) => logger.info({ ready }, ready ? "ready" : "not ready"));

    const observer = createTurnObserver({ logger, metrics });
    const runner = new TurnRunner({ store, model: models.model, leaseMs: config.leaseMs, observer });
    const chat = createChatHandlers({
      store,
      maxTokens: config.maxTokens,
      defaultOnDisconnect: OnDisconnect.CONTINUE,
      firstText: metrics.firstToken,
      admission: {
        store,
        runner,
        rateLimiter,
        teams: { byName: config.teams, defaultTeam: config.defaultTeam },
        release: { version, track },
        maxTokens: config.maxTokens,
        draining: () => readiness.current().draining,
        queueChanged: metrics.turnsQueued,
      },
    });
    const sessions = createSessionHandlers({ store, version });
    const model = config.teams.get(config.defaultTeam)?.agents[0].model ?? "";
    const rpc = createRpcHandler({
      corsOrigins: config.corsOrigins,
      interceptors: createInterceptors({ logger, metrics }),
      onRefused: observeRefused({ logger, metrics }),
      routes(router) {
        router.service(ChatService, chat).service(SessionService, sessions);
        registerHealth(router, health);
        registerReflection(router, [ChatService, SessionService], { alsoKnown: errorDetailFiles });
      },
      fallback: servePages(
        createConsoleFiles({
          directory: consoleFolder,
          config: {
            version,
            track,
            simulatedModel,
            model,
            teams: [...config.teams.keys()],
            embeddedStore: config.redisUrl === undefined,
          },
        }),
      ),
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
    const server = await startHttpServer({ host, port, ...rpc, maxStreamsPerConnection });
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
        server.stopAccepting();
        await runner.drain(drainMs);
      },
      { deadlineMs: drainMs + STREAMS_END_MS },
    );
    return {
      url: server.url,
      opsUrl: server.url.replace(/:\d+$/, `:${ops.port}`),
      checkedOnce: readiness.checkedOnce,
      close: () => lifecycle.close(),
    };
  } catch (error) {
    await lifecycle.close().catch(() => undefined);
    throw error;
  }
}

/** Readers of ended turns get this long to read their last events, in milliseconds. */
const STREAMS_END_MS = 5_000;

/** A store's failure as /readyz may show it. */
function sayWhy(error: unknown): never {
  const unavailable = error instanceof Error && error.message === "STORE_UNAVAILABLE";
  if (unavailable || !(error instanceof Error))
    throw new NotReady("the session store does not answer", { cause: error });
  throw new NotReady(error.message, { cause: error });
}

function noModel(error: unknown): never {
  throw new NotReady("no model endpoint has answered", { cause: error });
}
