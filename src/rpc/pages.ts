import type { ServerResponse } from "node:http";
import type { createConsoleFiles } from "./console-files.ts";
import type { HttpHandler } from "./http-server.ts";

/** Answers what is no RPC: with a page, or with 404. */
export function servePages(consoleFiles: ReturnType<typeof createConsoleFiles>): HttpHandler {
  return (request, response) => {
    consoleFiles(request, response).then(
      (served) => served || notFound(response as ServerResponse),
      () => response.destroy(),
    );
  };
}

function notFound(response: ServerResponse): void {
  response.writeHead(404, { "content-type": "text/plain; charset=utf-8" });
  response.end("There is nothing here. The console is at /, the services are listed by gRPC server reflection.\n");
}
