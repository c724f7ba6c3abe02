import * as http from "node:http";
import * as http2 from "node:http2";
import * as net from "node:net";
import * as tls from "node:tls";
import type { TlsFiles } from "../platform/tls-files.ts";

/** A handler of both kinds of requests, as connect-node makes them. */
export type HttpHandler = (
  request: http.IncomingMessage | http2.Http2ServerRequest,
  response: http.ServerResponse | http2.Http2ServerResponse,
) => void;

/** Takes an HTTP/2 stream before Node makes a request of it; false: it is not for it, and untouched. */
export type StreamHandler = (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => boolean;

export interface HttpServer {
  readonly port: number;
  /** `http://host:port`, or `https:`, for a person to open. */
  readonly url: string;
  /** Takes no new connections, tells HTTP/2 clients to go away (GOAWAY), and closes connections as they fall idle. */
  stopAccepting(): void;
  /** Waits for open requests, at most `deadlineMs`, then cuts what is left. */
  close(deadlineMs: number): Promise<void>;
}

/** First bytes of the HTTP/2 connection preface (RFC 9113, 3.4): no HTTP/1.1 method begins so. */
const HTTP2_PREFACE = "PRI";

/** A connection that says nothing for this long at its start is closed, in milliseconds. */
const FIRST_BYTES_TIMEOUT_MS = 30_000;

/** Largest header block, in bytes. Node's own bound for HTTP/1.1. */
const MAX_HEADER_BYTES = 16_384;
const HEADERS_TOO_LARGE = "431 Request Header Fields Too Large";

/**
 * Window per HTTP/2 connection for what clients send, in bytes: the default of 64 KiB is shared by all streams of a
 * connection, and one message that nobody reads yet would stop the others.
 */
const CONNECTION_WINDOW_BYTES = 4 * 1_024 * 1_024;

/**
 * Resets that a connection may send at once before it is closed (nghttp2's guard against clients that only open and reset),
 * at least and as often as it may have streams. nghttp2's own 1,000 are used up when a proxy that carries many users loses
 * them once, and the connection's other streams end with it. They come back at its 33 in a second.
 */
const RESET_BURST = { least: 1_000, perStream: 10 } as const;
const RESETS_PER_S = 33;

/**
 * Serves HTTP/1.1 and HTTP/2 on one port: a connection's first bytes say which it is. Without TLS (h2c with prior
 * knowledge), or within it, where ALPN offers both. Rejects with a sentence when the port cannot be had.
 */
export async function startHttpServer({
  host,
  port,
  handler,
  streamHandler = () => false,
  maxStreamsPerConnection,
  tls: tlsFiles,
}: {
  host: string;
  /** 0: any free port. */
  port: number;
  handler: HttpHandler;
  /** Asked first; default: takes none. */
  streamHandler?: StreamHandler;
  /** HTTP/2 streams at a time on one connection. */
  maxStreamsPerConnection: number;
  /** The certificate, if the port speaks TLS. New connections get the newest one. */
  tls?: Pick<TlsFiles, "current" | "onChange"> | undefined;
}): Promise<HttpServer> {
  const h1 = http.createServer({ maxHeaderSize: MAX_HEADER_BYTES }, handler);
  // It gets its sockets handed over and never listens, but Node begins to keep account of connections (which are idle,
  // which take too long to send their headers) only when a server listens.
  h1.emit("listening");
  const h2 = http2.createServer(
    {
      settings: { maxConcurrentStreams: maxStreamsPerConnection, maxHeaderListSize: MAX_HEADER_BYTES },
      maxSessionMemory: 1_000,
      streamResetBurst: Math.max(RESET_BURST.least, RESET_BURST.perStream * maxStreamsPerConnection),
      streamResetRate: RESETS_PER_S,
    },
    (request, response) => {
      // Clients need not obey the setting, and Node enforces 64 KiB.
      if (headerBytes(request.rawHeaders) <= MAX_HEADER_BYTES) return handler(request, response);
      response.writeHead(431);
      response.end();
    },
  );
  // Node's own listener makes a request and a response of a stream. They cost as much as all else in an HTTP/2 stream.
  const [makeRequest] = h2.listeners("stream") as ((...stream: Http2StreamEvent) => void)[];
  if (makeRequest === undefined) throw new Error("this Node has no listener of its own for HTTP/2 streams");
  h2.removeAllListeners("stream");
  h2.on("stream", (...event: Http2StreamEvent) => {
    const [stream, headers, , rawHeaders] = event;
    if (headerBytes(rawHeaders) > MAX_HEADER_BYTES || !streamHandler(stream, headers)) makeRequest.call(h2, ...event);
  });
  const sessions = new Set<http2.ServerHttp2Session>();
  h2.on("session", (session) => {
    sessions.add(session);
    session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
    session.once("close", () => sessions.delete(session));
  });
  // A client that breaks the protocol or goes away is no error of the server's.
  h2.on("sessionError", () => undefined);
  h1.on("clientError", (error: NodeJS.ErrnoException, socket) => {
    const status = error.code === "HPE_HEADER_OVERFLOW" ? HEADERS_TOO_LARGE : "400 Bad Request";
    if (socket.writable) socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\n\r\n`);
  });

  const sockets = new Set<net.Socket>();
  const onConnection = (socket: net.Socket): void => {
    socket.on("error", () => socket.destroy());
    const timer = setTimeout(() => socket.destroy(), FIRST_BYTES_TIMEOUT_MS);
    socket.once("close", () => clearTimeout(timer));
    let first = Buffer.alloc(0);
    const onReadable = (): void => {
      for (let chunk: Buffer | null = socket.read(); chunk !== null; chunk = socket.read())
        first = Buffer.concat([first, chunk]);
      const start = first.toString("latin1", 0, HTTP2_PREFACE.length);
      if (start.length < HTTP2_PREFACE.length && HTTP2_PREFACE.startsWith(start)) return;
      clearTimeout(timer);
      socket.off("readable", onReadable);
      socket.unshift(first);
      (start === HTTP2_PREFACE ? h2 : h1).emit("connection", socket);
    };
    socket.on("readable", onReadable);
  };
  const acceptor =
    tlsFiles === undefined
      ? net.createServer({ noDelay: true }, onConnection)
      : createTlsServer(tlsFiles, onConnection);
  acceptor.on("connection", (socket: net.Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });

  await listen(acceptor, { host, port });
  const address = acceptor.address() as net.AddressInfo;
  const shownHost = ["0.0.0.0", "::", ""].includes(host) ? "localhost" : host;
  const closed = new Promise<void>((resolve) => acceptor.once("close", () => resolve()));
  const stopAccepting = (): void => {
    acceptor.close();
    for (const session of sessions) session.close();
    h1.closeIdleConnections();
  };
  return {
    port: address.port,
    url: `${tlsFiles === undefined ? "http" : "https"}://${shownHost.includes(":") ? `[${shownHost}]` : shownHost}:${address.port}`,
    stopAccepting,
    async close(deadlineMs) {
      stopAccepting();
      // HTTP/1.1 connections do not end by themselves when their last response has.
      const idle = setInterval(() => h1.closeIdleConnections(), 50);
      const timer = setTimeout(() => {
        for (const socket of sockets) socket.destroy();
      }, deadlineMs);
      await closed;
      clearInterval(idle);
      clearTimeout(timer);
      h1.close();
    },
  };
}

/** What Node tells a listener of `stream`. */
type Http2StreamEvent = [
  stream: http2.ServerHttp2Stream,
  headers: http2.IncomingHttpHeaders,
  flags: number,
  rawHeaders: string[],
];

function createTlsServer(files: Pick<TlsFiles, "current" | "onChange">, onConnection: (socket: net.Socket) => void) {
  const server = tls.createServer(
    { ...files.current(), ALPNProtocols: ["h2", "http/1.1"], handshakeTimeout: FIRST_BYTES_TIMEOUT_MS, noDelay: true },
    onConnection,
  );
  // A client that breaks off its handshake is no error of the server's.
  server.on("tlsClientError", (_, socket) => socket.destroy());
  const stopFollowing = files.onChange((pair) => server.setSecureContext({ ...pair }));
  server.once("close", stopFollowing);
  return server;
}

/** Size of a header list, near enough to RFC 9113 (6.5.2): names and values, and 32 bytes for each field. */
function headerBytes(rawHeaders: readonly string[]): number {
  let bytes = rawHeaders.length * 16;
  for (const part of rawHeaders) bytes += part.length;
  return bytes;
}

function listen(server: net.Server, { host, port }: { host: string; port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const why =
        error.code === "EADDRINUSE"
          ? "it is in use; stop what uses it or choose another port"
          : (error.code ?? error.message);
      reject(new Error(`Cannot listen on ${host}:${port}: ${why}.`, { cause: error }));
    });
    server.listen({ host, port }, () => resolve());
  });
}
