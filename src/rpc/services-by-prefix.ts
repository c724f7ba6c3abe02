import type { HttpHandler, StreamHandler } from "./http-server.ts";

/** What a port hands its requests to. */
export interface RpcHandlers {
  readonly handler: HttpHandler;
  readonly streamHandler: StreamHandler;
}

/** Another service of this process that answers on this port too. */
export interface ServiceBeside extends RpcHandlers {
  /** Begins the paths that are its own, such as `/parley.usage.v1.`. */
  readonly prefix: string;
}

/**
 * Divides a port by the paths' beginning, as a mesh's route would, but within the process: what is the other's is
 * answered by the other, by its interceptors, its credentials and its metrics.
 */
export function servedBeside(own: RpcHandlers, beside: ServiceBeside | undefined): RpcHandlers {
  if (beside === undefined) return own;
  const serviceOf = (path = ""): RpcHandlers => (path.startsWith(beside.prefix) ? beside : own);
  return {
    handler: (request, response) => serviceOf(request.url).handler(request, response),
    streamHandler: (stream, headers) => serviceOf(headers[":path"]).streamHandler(stream, headers),
  };
}
