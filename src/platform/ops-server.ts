import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Readiness } from "./readiness.ts";

/** Answers on their way when it is closed get this long, in milliseconds. */
const CLOSE_MS = 1_000;
const CLOSE_LOOK_MS = 20;

export interface OpsServer {
  /** The port that was taken, where 0 was asked for. */
  readonly port: number;
  close(): Promise<void>;
}

/**
 * Serves the people and machines that look after the process, over HTTP/1.1: `/livez` (200 while the process answers at
 * all), `/readyz` (200 or 503, with the checks as JSON), `/metrics` (503 when they cannot be collected) and further pages.
 * Rejects when the port cannot be had.
 *
 * @param metricsTimeoutMs A scrape that takes longer is given up. Default 5,000: half of Prometheus' own.
 */
export async function startOpsServer({
  host,
  port,
  readyz,
  metrics,
  contentType,
  pages = {},
  metricsTimeoutMs = 5_000,
}: {
  readonly host: string;
  readonly port: number;
  readonly readyz: () => Readiness;
  readonly metrics: () => Promise<string>;
  /** Content type of the metrics. */
  readonly contentType: string;
  /** Further pages by path. */
  readonly pages?: Readonly<Record<string, OpsPage>>;
  readonly metricsTimeoutMs?: number;
}): Promise<OpsServer> {
  const all = new Map<string, OpsPage>([
    ...Object.entries(pages),
    ["/livez", async () => ({ status: 200, contentType: "text/plain; charset=utf-8", body: "ok\n" })],
    ["/readyz", async () => asJson(readyz())],
    ["/metrics", async () => ({ status: 200, contentType, body: await withDeadline(metrics(), metricsTimeoutMs) })],
  ]);
  const server = createServer((request, response) => {
    const page = all.get((request.url ?? "/").split("?", 1)[0] ?? "");
    if (page === undefined) return send(response, plain(404, "not found"));
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.setHeader("allow", "GET, HEAD");
      return send(response, plain(405, "method not allowed"));
    }
    // The error's text stays here: it may name what no page should.
    page().then(
      (content) => send(response, content),
      () => send(response, plain(503, "cannot be collected now")),
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => {
      server.off("error", reject);
      resolve();
    });
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        // An answer on its way, such as the last scrape's, is finished first.
        const sweeping = setInterval(() => server.closeIdleConnections(), CLOSE_LOOK_MS);
        const late = setTimeout(() => server.closeAllConnections(), CLOSE_MS);
        server.close(() => {
          clearInterval(sweeping);
          clearTimeout(late);
          resolve();
        });
      }),
  };
}

/** One page, made anew for each request. */
export type OpsPage = () => Promise<OpsPageContent>;

export interface OpsPageContent {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
}

function asJson(readiness: Readiness): OpsPageContent {
  const body = `${JSON.stringify(readiness)}\n`;
  return { status: readiness.ready ? 200 : 503, contentType: "application/json; charset=utf-8", body };
}

function plain(status: number, sentence: string): OpsPageContent {
  return { status, contentType: "text/plain; charset=utf-8", body: `${sentence}\n` };
}

function send(response: ServerResponse, { status, contentType, body }: OpsPageContent): void {
  response.writeHead(status, {
    "content-type": contentType,
    "content-length": Buffer.byteLength(body),
    "cache-control": "no-store",
  });
  // Node leaves the body of a HEAD answer out.
  response.end(body);
}

async function withDeadline<T>(work: Promise<T>, deadlineMs: number): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error("too late")), deadlineMs);
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
