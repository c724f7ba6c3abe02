import type { HttpHandler } from "./http-server.ts";
import { OPENAI_PREFIX } from "./openai-door.ts";
import { isRestPath } from "./rest-door.ts";

/** Divides what is no RPC among the doors, by path, and leaves the rest to `otherwise`. */
export function serveDoors({
  openAi,
  rest,
  otherwise,
}: {
  openAi: HttpHandler;
  /** Absent: that door is closed. */
  rest: HttpHandler | undefined;
  otherwise: HttpHandler;
}): HttpHandler {
  return (request, response) => {
    const path = request.url?.split("?", 1)[0] ?? "";
    if (path.startsWith(OPENAI_PREFIX)) return openAi(request, response);
    if (rest !== undefined && isRestPath(path)) return rest(request, response);
    otherwise(request, response);
  };
}
