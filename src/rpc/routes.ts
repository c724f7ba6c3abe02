import type { ConnectRouter, Interceptor } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { corsHeaders } from "./cors.ts";
import type { HttpHandler } from "./http-server.ts";
import { routerLimits } from "./router-options.ts";

/** Serves RPCs (gRPC, gRPC-Web, Connect), CORS for them, and hands all other paths to `fallback`. */
export function createRpcHandler({ routes, interceptors, corsOrigins, fallback }: {
  routes(router: ConnectRouter): void;
  interceptors: Interceptor[];
  /** Origins that browsers may call from. */
  corsOrigins: readonly string[];
  fallback: HttpHandler;
}): HttpHandler {
  const rpcs = connectNodeAdapter({ ...routerLimits, routes, interceptors, fallback: fallback as never }) as HttpHandler;
  return (request, response) => {
    const { origin } = request.headers;
    const preflight = request.method === "OPTIONS" && request.headers["access-control-request-method"] !== undefined;
    if (origin === undefined) return rpcs(request, response);
    const headers = corsHeaders({ origin, preflight }, corsOrigins);
    if (preflight) {
      response.statusCode = headers === undefined ? 403 : 204;
      for (const [name, value] of Object.entries(headers ?? {})) response.setHeader(name, value);
      response.end();
      return;
    }
    for (const [name, value] of Object.entries(headers ?? { Vary: "Origin" })) response.setHeader(name, value);
    rpcs(request, response);
  };
}
