import { ChatService, OnDisconnect } from "../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../gen/parley/chat/v1/session_service_pb.js";
import { createPriceTable } from "./accounts/price-table.ts";
import { type Config, loadConfig } from "./config.ts";
import type { Authenticator } from "./identity/authenticator.ts";
import { authenticatorOf } from "./identity/authenticators.ts";
import { createMetrics, type Metrics } from "./metrics.ts";
import { createModelParts, createModels } from "./models.ts";
import { createConsoleLogger } from "./platform/console-logger.ts";
import { ConfigError } from "./platform/environment.ts";
import { createLifecycle } from "./platform/lifecycle.ts";
import type { Logger } from "./platform/logger-port.ts";
import { createFetchTransport } from "./providers/fetch-transport.ts";
import { createChatHandlers } from "./rpc/chat-handlers.ts";
import { brokenResponse, createFetchRpcHandler } from "./rpc/fetch-routes.ts";
import { createInterceptors, observeRefused } from "./rpc/interceptors.ts";
import { REQUEST_ID_HEADER, requestIdOf } from "./rpc/request-gate.ts";
import { createSessionHandlers } from "./rpc/session-handlers.ts";
import { connectStores, type Stores } from "./stores.ts";
import { createTurnObserver } from "./turn-observer.ts";
import { fixedDefinitions } from "./turns/definitions.ts";
import { TurnRunner } from "./turns/turn-runner.ts";

/** Name in the logs. */
const SERVICE = "parley-edge";

/** A turn that is given up gets this long to let go, in milliseconds. */
const TURN_GIVEN_UP_MS = 2_000;

/** What the runtime gives a request to let its work end after its answer. */
export interface EdgeContext {
  waitUntil(work: Promise<unknown>): void;
}

/** Variables that an operator binds, as in docs/config.md. */
export type EdgeEnvironment = Readonly<Record<string, string | undefined>>;

/**
 * Makes the service for an edge runtime: Connect and gRPC-Web as a `fetch` handler. In workerd a socket belongs to the
 * request that opened it, so each request has its own connection to Redis, and a turn ends with its call.
 *
 * The configuration is read at the first request. As long as it cannot be used, calls get INTERNAL and the log has what
 * is to be mended.
 */
export function createEdge({ packageVersion }: { packageVersion: string }) {
  let isolate: Isolate | undefined;
  return {
    async fetch(request: Request, env: EdgeEnvironment, context: EdgeContext): Promise<Response> {
      let service: RequestService | undefined;
      try {
        isolate ??= startIsolate(env, packageVersion);
        service = startRequest(isolate);
        const { close } = service;
        const response = await service.handle(request);
        return afterBody(response, () => context.waitUntil(close()));
      } catch (error) {
        if (service !== undefined) context.waitUntil(service.close());
        return refuseBroken(request, { error, logger: isolate?.logger ?? bareLogger(packageVersion) });
      }
    },
  };
}

/** What the requests of an isolate share: nothing that holds a socket or a timer. */
interface Isolate {
  readonly config: Config;
  readonly logger: Logger;
  readonly metrics: Metrics;
  /** The embedded store, where there is no Redis. */
  readonly embedded: Stores | undefined;
  /** Where no store is needed to know callers. */
  readonly authenticate: Authenticator | undefined;
}

function startIsolate(env: EdgeEnvironment, packageVersion: string): Isolate {
  const readFile = (): string => {
    throw new Error("there are no files at the edge");
  };
  const variables = Object.fromEntries(Object.entries(env).filter(([, value]) => typeof value === "string"));
  const config = loadConfig(variables, { readFile, packageVersion });
  const { version, track, logLevel: level } = config;
  const logger = createConsoleLogger({ level, service: SERVICE, version, track });
  return {
    config,
    logger,
    metrics: createMetrics({ version, track, models: [...config.models.keys()], processMetrics: false }),
    embedded: config.redisUrl === undefined ? connectStores({ config, logger }) : undefined,
    authenticate: config.auth.mode === "jwt" ? authenticatorOf(config.auth, {}) : undefined,
  };
}

/** Logs where the configuration does not say how. */
function bareLogger(version: string): Logger {
  return createConsoleLogger({ level: "info", service: SERVICE, version, track: "stable" });
}

/** The answer where not even an interceptor could run. What is wrong stands in the log, with the id that the caller gets. */
async function refuseBroken(
  request: Request,
  { error, logger }: { error: unknown; logger: Logger },
): Promise<Response> {
  const requestId = requestIdOf(request.headers);
  // Problems name variables and rules; they never quote a value (config.ts).
  const problems = error instanceof ConfigError ? { problems: error.problems } : {};
  logger.error({ request_id: requestId, ...problems, error }, "request failed");
  const response = await brokenResponse(request);
  response.headers.set(REQUEST_ID_HEADER, requestId);
  return response;
}

/** The service for one request. */
interface RequestService {
  handle(request: Request): Promise<Response>;
  /** Lets the request's turn end and puts everything away. Never rejects. */
  close(): Promise<void>;
}

function startRequest({ config, logger, metrics, embedded, ...isolate }: Isolate): RequestService {
  const lifecycle = createLifecycle();
  const { version, track, leaseMs, maxTokens } = config;
  const { store, rateLimiter, accounts, apiKeys } = embedded ?? connectStores({ config, logger, lazy: true });
  if (embedded === undefined) lifecycle.onClose("store", () => store.close());
  const authenticate = isolate.authenticate ?? authenticatorOf(config.auth, { keys: apiKeys });
  const modelParts = createModelParts({ config, transport: createFetchTransport(), metrics, logger });
  lifecycle.onClose("breakers", () => modelParts.close());
  const { model } = createModels({ models: config.models, parts: modelParts });
  const observer = createTurnObserver({ logger, metrics });
  const { tools, teams, defaultTeam } = config;
  const definitions = fixedDefinitions({ teams, defaultTeam, model, tools });
  // A request needs no second connection to hear that its turn is to end: it asks whenever it writes and renews.
  const deaf = { ...store, onStop: () => () => undefined };
  const prices = createPriceTable({ ...config.prices, models: [...config.models.keys()] });
  const runner = new TurnRunner({
    store: deaf,
    accounts,
    prices,
    definitions,
    leaseMs,
    observer,
  });
  lifecycle.onClose("turns", () => runner.drain(leaseMs), { deadlineMs: leaseMs + TURN_GIVEN_UP_MS });
  const chat = createChatHandlers({
    store,
    maxTokens,
    defaultOnDisconnect: OnDisconnect.CANCEL,
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
      maxTokens: config.maxTokens,
    },
  });
  const handle = createFetchRpcHandler({
    corsOrigins: config.corsOrigins,
    interceptors: createInterceptors({ logger, metrics, authenticate }),
    onRefused: observeRefused({ logger, metrics }),
    routes: (router) =>
      router.service(ChatService, chat).service(SessionService, createSessionHandlers({ store, version })),
  });
  const close = (): Promise<void> =>
    lifecycle.close().catch((error: unknown) => logger.error({ error }, "request not put away"));
  return { handle, close };
}

/** Calls `done` when the response has been sent, or its reader has gone. */
function afterBody(response: Response, done: () => void): Response {
  if (response.body === null) {
    done();
    return response;
  }
  const reader = response.body.getReader();
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      try {
        const { done: isEnd, value } = await reader.read();
        if (!isEnd) return controller.enqueue(value);
        controller.close();
      } catch (error) {
        controller.error(error);
      }
      done();
    },
    async cancel(reason) {
      await reader.cancel(reason).catch(() => undefined);
      done();
    },
  });
  return new Response(body, { status: response.status, headers: response.headers });
}
