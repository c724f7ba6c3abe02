import { createRouterTransport, type Transport } from "@connectrpc/connect";
import { ChatService, OnDisconnect } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { createMemoryAccountStore } from "../../src/accounts/memory-account-store.ts";
import { createPriceTable } from "../../src/accounts/price-table.ts";
import { createMemoryRateLimiter } from "../../src/accounts/rate-limit.ts";
import { loadConfig } from "../../src/config.ts";
import { createMetrics } from "../../src/metrics.ts";
import { createModelParts, createModels } from "../../src/models.ts";
import { createLogger } from "../../src/platform/logger.ts";
import { startSimulatedModel } from "../../src/providers/simulated-model.ts";
import { createUndiciTransport } from "../../src/providers/undici-transport.ts";
import { createChatHandlers } from "../../src/rpc/chat-handlers.ts";
import { createInterceptors } from "../../src/rpc/interceptors.ts";
import { routerOptions } from "../../src/rpc/router-options.ts";
import { createSessionHandlers } from "../../src/rpc/session-handlers.ts";
import { createMemoryStore } from "../../src/store/memory-store.ts";
import { createTurnObserver } from "../../src/turn-observer.ts";
import { fixedDefinitions } from "../../src/turns/definitions.ts";
import { TurnRunner } from "../../src/turns/turn-runner.ts";

/** The handlers behind a transport without a network: the same answers as over a port, or a port has added something. */
export async function startInMemory(): Promise<{ transport: Transport; close(): Promise<void> }> {
  const simulated = await startSimulatedModel({ chunkDelayMs: 0 });
  const config = loadConfig(
    { OPENAI_BASE_URL: simulated.baseUrl },
    { readFile: () => "", packageVersion: "0.0.0-test" },
  );
  const { version, track, maxTokens, leaseMs, sessionTtlMs: ttlMs, teams, tools, defaultTeam } = config;
  const metrics = createMetrics({ version, track, models: [...config.models.keys()] });
  const logger = createLogger({ level: "silent", version, track });
  const store = createMemoryStore({ ttlMs, leaseMs });
  const undici = createUndiciTransport();
  const parts = createModelParts({ config, transport: undici, metrics, logger });
  const { model } = createModels({ models: config.models, parts });
  const definitions = fixedDefinitions({ teams, defaultTeam, model, tools });
  const accounts = createMemoryAccountStore();
  const prices = createPriceTable(config.prices);
  const rateLimiter = createMemoryRateLimiter(config.rateLimit);
  const runner = new TurnRunner({
    store,
    accounts,
    prices,
    definitions,
    leaseMs,
    observer: createTurnObserver({ logger, metrics }),
  });
  const chat = createChatHandlers({
    store,
    maxTokens,
    defaultOnDisconnect: OnDisconnect.CONTINUE,
    firstText: metrics.firstToken,
    admission: {
      store,
      runner,
      rateLimiter,
      definitions,
      release: { version, track },
      maxTokens,
      draining: () => false,
      queueChanged: metrics.turnsQueued,
    },
    preview: {
      store,
      accounts,
      prices,
      rateLimiter,
      definitions,
      release: { version },
      maxTokens,
    },
  });
  const transport = createRouterTransport(
    (router) => router.service(ChatService, chat).service(SessionService, createSessionHandlers({ store, version })),
    { router: routerOptions({ interceptors: createInterceptors({ logger, metrics }) }) },
  );
  return {
    transport,
    async close() {
      await runner.drain(1_000);
      await parts.close();
      await undici.close();
      await store.close();
      await simulated.close();
    },
  };
}
