import type { ServerResponse } from "node:http";
import type { HttpHandler } from "./http-server.ts";
import type { PageHandler } from "./static-files.ts";

/** Answers what is no RPC: with a page of the first that has it, or with 404. */
export function servePages(...sites: readonly PageHandler[]): HttpHandler {
  const serve: PageHandler = async (request, response) => {
    for (const site of sites) if (await site(request, response)) return true;
    return false;
  };
  return (request, response) => {
    serve(request, response).then(
      (served) => served || notFound(response as ServerResponse),
      () => response.destroy(),
    );
  };
}

function notFound(response: ServerResponse): void {
  response.writeHead(404, { "content-type": "text/plain; charset=utf-8" });
  response.end(
    "There is nothing here. The console is at /, the documentation at /docs/, the services are listed by gRPC server reflection.\n",
  );
}
