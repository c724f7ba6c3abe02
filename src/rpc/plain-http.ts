import type { ServerResponse } from "node:http";
import { constants } from "node:http2";
import type { JsonValue } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import { Failure } from "../failure.ts";
import { responseWriter } from "../platform/response-writer.ts";
import { asWebHeaders } from "./direct-call.ts";
import { DEFAULT_RETRY_MS, errorTable } from "./error-table.ts";
import { resetError } from "./framework-errors.ts";
import type { HttpHandler } from "./http-server.ts";
import { routerLimits } from "./router-options.ts";

/** A request that is no RPC, whatever its version of HTTP. */
export interface PlainRequest {
  readonly method: string;
  /** Without its query. */
  readonly path: string;
  readonly header: Headers;
  /** Aborted when the client is gone before it had its answer. */
  readonly signal: AbortSignal;
  /** The body. MALFORMED_REQUEST, REQUEST_TOO_LARGE, UNSUPPORTED_ENCODING: it is no JSON that is read here. */
  json(): Promise<JsonValue>;
}

type NodeRequest = Parameters<HttpHandler>[0];
type NodeResponse = Parameters<HttpHandler>[1];

/** Whether a route that is there for one method, which `allow` names, serves a request: HEAD is a GET without its body. */
export function isServed({ method }: PlainRequest, allow: string): boolean {
  return method === allow || (allow === "GET" && method === "HEAD");
}

export function plainRequest(request: NodeRequest, response: NodeResponse): PlainRequest {
  const gone = new AbortController();
  response.on("close", () => {
    // Not writableFinished: over HTTP/2 that is said of every response that is closed.
    if (!response.writableEnded) gone.abort(resetError(constants.NGHTTP2_CANCEL));
  });
  const header = asWebHeaders(request.headers);
  return {
    method: request.method ?? "",
    path: request.url?.split("?", 1)[0] ?? "",
    header,
    signal: gone.signal,
    async json() {
      // Of a browser another type would need no preflight, and so any page could send it.
      const isJson = /^application\/json\s*(;|$)/i.test(header.get("content-type") ?? "");
      const encoding = header.get("content-encoding") ?? "identity";
      if (!isJson || encoding !== "identity") throw new Failure("UNSUPPORTED_ENCODING");
      const body = await readBody(request, gone.signal);
      try {
        return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body)) as JsonValue;
      } catch {
        throw new Failure("MALFORMED_REQUEST");
      }
    },
  };
}

async function readBody(request: NodeRequest, gone: AbortSignal): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  try {
    // What is left of a request that is refused is read after its answer.
    for await (const piece of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Uint8Array>) {
      bytes += piece.byteLength;
      if (bytes > routerLimits.readMaxBytes) throw new Failure("REQUEST_TOO_LARGE");
      pieces.push(piece);
    }
  } catch (error) {
    throw error instanceof Failure ? error : new Failure("CALL_CANCELLED", {}, { cause: error });
  }
  gone.throwIfAborted();
  return Buffer.concat(pieces);
}

/** What a call within the process, or a route itself, was refused with. */
export function failureOf(error: unknown): Failure {
  if (error instanceof Failure) return error;
  const cause = error instanceof ConnectError ? error.cause : undefined;
  return cause instanceof Failure ? cause : new Failure("INTERNAL", {}, { cause: error });
}

/** Whether an error is a defect of a route's own: what an RPC failed with has its line in the log already. */
export function isOwnDefect(error: unknown): boolean {
  return !(error instanceof Failure) && !(error instanceof ConnectError);
}

/** How long to wait before a retry, in milliseconds; undefined: a retry does not help. */
export function retryMsOf({ reason, facts }: Failure): number | undefined {
  return errorTable[reason].retryable ? (facts.retryAfterMs ?? DEFAULT_RETRY_MS) : undefined;
}

export function sendJson(
  response: NodeResponse,
  { status, header, body }: { status: number; header?: Headers; body: JsonValue },
): void {
  const text = JSON.stringify(body);
  const reply = response as ServerResponse;
  header?.forEach((value, name) => void reply.setHeader(name, value));
  reply.statusCode = status;
  reply.setHeader("content-type", "application/json");
  reply.setHeader("content-length", Buffer.byteLength(text));
  reply.end(text);
}

/** A stream of server-sent events (HTML Living Standard, 9.2), which begins with what is first written to it. */
export interface EventStream {
  readonly begun: boolean;
  /** Resolves when there is room for more, or nobody is there to read. */
  data(text: string): Promise<void>;
  /** A line that clients pass over: a sign of life. */
  comment(text: string): Promise<void>;
  end(): void;
}

export function eventStream(response: NodeResponse, headerOf: () => Headers): EventStream {
  const reply = response as ServerResponse;
  const writer = responseWriter(response);
  const write = async (text: string): Promise<void> => {
    if (writer.closed) return;
    if (!reply.headersSent) {
      headerOf().forEach((value, name) => void reply.setHeader(name, value));
      reply.setHeader("content-type", "text/event-stream; charset=utf-8");
      reply.setHeader("cache-control", "no-cache");
      // Proxies that buffer would hold the stream back.
      reply.setHeader("x-accel-buffering", "no");
      reply.writeHead(200);
    }
    await writer.write(text);
  };
  return {
    get begun() {
      return reply.headersSent;
    },
    data: (text) => write(`data: ${text}\n\n`),
    comment: (text) => write(`: ${text}\n\n`),
    end: () => void reply.end(),
  };
}
