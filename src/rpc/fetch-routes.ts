import { type ConnectRouter, createConnectRouter, type Interceptor } from "@connectrpc/connect";
import {
  type UniversalServerResponse,
  universalServerRequestFromFetch,
  universalServerResponseToFetch,
} from "@connectrpc/connect/protocol";
import { corsHeaders } from "./cors.ts";
import { brokenService, grpcNotPossible, looksLikeRpc, unknownMethod, withErrorBody } from "./http-refusals.ts";
import type { RefusedCall } from "./request-gate.ts";
import { routerOptions } from "./router-options.ts";

/**
 * Serves RPCs as a `fetch` handler for edge runtimes: Connect and gRPC-Web. gRPC itself needs HTTP/2 trailers, which
 * `Response` has not. Nothing here needs Node. Answers without compression: edge runtimes compress themselves.
 */
export function createFetchRpcHandler({
  routes,
  interceptors,
  corsOrigins,
  fallback = async () => new Response("not found\n", { status: 404 }),
  onRefused,
}: {
  routes(router: ConnectRouter): void;
  interceptors: Interceptor[];
  /** Origins that browsers may call from. */
  corsOrigins: readonly string[];
  /** Answers what is no RPC. Default: 404. */
  fallback?: (request: Request) => Promise<Response>;
  /** Told of each call that could not be read, which no interceptor sees. */
  onRefused?: (call: RefusedCall) => void;
}): (request: Request) => Promise<Response> {
  const router = createConnectRouter({ ...routerOptions({ interceptors, onRefused }), grpc: false });
  routes(router);
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));

  const serve = async (request: Request): Promise<Response> => {
    const path = new URL(request.url).pathname;
    const contentType = request.headers.get("content-type");
    if (GRPC_CONTENT_TYPE.test(contentType ?? "")) return toFetch(grpcNotPossible());
    const handler = handlers.get(path);
    if (handler === undefined) {
      const rpc = looksLikeRpc({ method: request.method, path, contentType });
      return rpc ? toFetch(unknownMethod(contentType)) : fallback(request);
    }
    const answer = await handler(universalServerRequestFromFetch(request, {}));
    return toFetch(withErrorBody(answer, { contentType, allow: handler.allowedMethods }));
  };

  return async (request) => {
    const origin = request.headers.get("origin");
    if (origin === null) return serve(request);
    const preflight = request.method === "OPTIONS" && request.headers.has("access-control-request-method");
    const headers = corsHeaders({ origin, preflight }, corsOrigins);
    const response = preflight
      ? new Response(null, { status: headers === undefined ? 403 : 204 })
      : await serve(request);
    for (const [name, value] of Object.entries(headers ?? { Vary: "Origin" })) response.headers.set(name, value);
    return response;
  };
}

/** The answer, in the caller's protocol, of a service that could not even be put together. */
export function brokenResponse(request: Request): Response {
  return toFetch(brokenService(request.headers.get("content-type")));
}

/** `application/grpc` and its codecs, but not gRPC-Web. */
const GRPC_CONTENT_TYPE = /^application\/grpc(?![\w-])/i;

/** A `Response` has no trailers: where there is no body, gRPC's may stand among the headers (Trailers-Only). */
function toFetch({ header, trailer, ...answer }: UniversalServerResponse): Response {
  const headers = new Headers(header);
  for (const [name, value] of trailer ?? []) headers.set(name, value);
  return universalServerResponseToFetch({ ...answer, header: headers });
}
