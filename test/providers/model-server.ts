import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { onTestFinished } from "vitest";

/** A hand-made model server on loopback, for what the simulated model does not do. */
export interface ModelServer {
  /** As OPENAI_BASE_URL takes it. */
  readonly baseUrl: string;
  readonly requests: readonly {
    readonly path: string;
    readonly headers: IncomingMessage["headers"];
    readonly body: unknown;
  }[];
  /** TCP connections that were opened so far. */
  readonly connections: number;
  /** Answers whose client closed the socket before their end. */
  readonly abandoned: number;
}

/** Starts a server that answers each request with `answer`; it is closed when the test has finished. */
export async function startModelServer(
  answer: (response: ServerResponse) => void | Promise<void>,
): Promise<ModelServer> {
  const requests: { path: string; headers: IncomingMessage["headers"]; body: unknown }[] = [];
  let connections = 0;
  let abandoned = 0;
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const text = Buffer.concat(chunks).toString();
    const body: unknown = text === "" ? undefined : JSON.parse(text);
    requests.push({ path: request.url ?? "", headers: request.headers, body });
    response.on("close", () => {
      if (!response.writableFinished) abandoned++;
    });
    await answer(response);
  });
  server.on("connection", () => connections++);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    return new Promise<void>((resolve) => server.close(() => resolve()));
  });
  return {
    baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    requests,
    get connections() {
      return connections;
    },
    get abandoned() {
      return abandoned;
    },
  };
}

/** A URL on loopback that nobody listens on. */
export async function deadBaseUrl(): Promise<string> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return `http://127.0.0.1:${port}/v1`;
}

/** Begins an answer of server-sent events. */
export function beginStream(response: ServerResponse): void {
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.flushHeaders();
}

/** One event of a stream. */
export function event(data: unknown): string {
  return `data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`;
}

/** An event with a piece of text. */
export function textEvent(content: string): string {
  return event({ choices: [{ index: 0, delta: { content }, finish_reason: null }] });
}

/** The event that ends a reply. */
export const STOP = event({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] });

/** The event that has the usage. */
export const USAGE = event({ choices: [], usage: { prompt_tokens: 11, completion_tokens: 3, total_tokens: 14 } });

export const DONE = event("[DONE]");
