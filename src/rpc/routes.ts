import { Http2ServerResponse } from "node:http2";
import { type ConnectRouter, createConnectRouter, type Interceptor } from "@connectrpc/connect";
import type { UniversalHandler, UniversalServerRequest, UniversalServerResponse } from "@connectrpc/connect/protocol";
import {
  compressionBrotli,
  compressionGzip,
  universalRequestFromNodeRequest,
  universalResponseToNodeResponse,
} from "@connectrpc/connect-node";
import { corsHeaders } from "./cors.ts";
import { servicesOf } from "./direct-call.ts";
import { createGrpcStreamHandler } from "./grpc-streams.ts";
import { badRequest, looksLikeRpc, unknownMethod, withErrorBody } from "./http-refusals.ts";
import type { HttpHandler, StreamHandler } from "./http-server.ts";
import type { RefusedCall } from "./request-gate.ts";
import { readRest } from "./rest-of-request.ts";
import { routerOptions } from "./router-options.ts";

type NodeRequest = Parameters<HttpHandler>[0];
type NodeResponse = Parameters<HttpHandler>[1];

/**
 * Serves RPCs (gRPC, gRPC-Web, Connect), CORS for them, and hands all other paths to `fallback`. Plain gRPC is served by the
 * stream handler, where there is HTTP/2; the other handler takes everything.
 */
export function createRpcHandler({
  routes,
  interceptors,
  corsOrigins,
  fallback,
  onRefused,
}: {
  routes(router: ConnectRouter): void;
  interceptors: Interceptor[];
  /** Origins that browsers may call from. */
  corsOrigins: readonly string[];
  /** Answers what is no RPC. */
  fallback: HttpHandler;
  /** Told of each call that could not be read, which no interceptor sees. */
  onRefused?: (call: RefusedCall) => void;
}): { handler: HttpHandler; streamHandler: StreamHandler } {
  const acceptCompression = [compressionGzip, compressionBrotli];
  const options = { ...routerOptions({ interceptors, onRefused }), acceptCompression };
  const router = createConnectRouter(options);
  const services = servicesOf(routes, router);
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));

  const serve: HttpHandler = (request, response) => {
    const path = request.url?.split("?", 1)[0] ?? "";
    const contentType = request.headers["content-type"] ?? null;
    const handler = handlers.get(path);
    if (handler === undefined) {
      if (!looksLikeRpc({ method: request.method, path, contentType })) {
        readRest(response);
        return fallback(request, response);
      }
      return write(unknownMethod(contentType), response);
    }
    const call = readRequest(request, response);
    if (call === undefined) return write(badRequest(contentType), response);
    answer(call, handler, response);
  };
  const answer = (call: UniversalServerRequest, handler: UniversalHandler, response: NodeResponse): void => {
    const contentType = call.header.get("content-type");
    handler(call).then(
      (answer) => write(withErrorBody(answer, { contentType, allow: handler.allowedMethods }), response),
      // Connect's handlers answer their errors themselves; this one did not.
      () => response.destroy(),
    );
  };

  const streamHandler = createGrpcStreamHandler({
    services,
    options,
    otherwise(call, path, stream) {
      const handler = handlers.get(path);
      if (handler !== undefined) answer(call, handler, new Http2ServerResponse(stream));
    },
  });
  const handler: HttpHandler = (request, response) => {
    const { origin } = request.headers;
    if (origin === undefined) return serve(request, response);
    const preflight = request.method === "OPTIONS" && request.headers["access-control-request-method"] !== undefined;
    const headers = corsHeaders({ origin, preflight }, corsOrigins);
    for (const [name, value] of Object.entries(headers ?? { Vary: "Origin" })) response.setHeader(name, value);
    if (!preflight) return serve(request, response);
    response.statusCode = headers === undefined ? 403 : 204;
    response.end();
  };
  return { handler, streamHandler };
}

/** Undefined: the host or the path cannot be read; then there is nothing to serve, and nothing may throw. */
function readRequest(request: NodeRequest, response: NodeResponse): UniversalServerRequest | undefined {
  try {
    const call = universalRequestFromNodeRequest(request, response as never, undefined, undefined);
    // Connect's own iteration destroys what it does not read to its end; what is left is to be read after the answer.
    return { ...call, body: request.iterator({ destroyOnReturn: false }) };
  } catch {
    return undefined;
  }
}

/** A client that goes away while its answer is written is no error of ours; its call has been told by its signal. */
function write(answer: UniversalServerResponse, response: NodeResponse): void {
  readRest(response);
  universalResponseToNodeResponse(answer, response as never).catch(() => undefined);
}
