import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import type { FetchLike, Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import type { McpServerDefinition } from "./mcp-servers-yaml.ts";

/** What the protocol adds to a result's text, in bytes; JSON may write a character in six of them. */
const ENVELOPE_BYTES = 65_536;

/** A stream that ended has its last event read within this time, in milliseconds; then what it did not answer is lost. */
const LAST_EVENT_MS = 1_000;

/** Makes the way to a server, not opened yet. No message that it brings is longer than the server's may be. */
export function createMcpTransport({
  transport,
  maxResultBytes,
}: Pick<McpServerDefinition, "transport" | "maxResultBytes">): Transport {
  const maxBytes = maxResultBytes + ENVELOPE_BYTES;
  if (transport.kind === "stdio") {
    const { command, args, env } = transport;
    // What a server says on standard error may be anything, and is not for the log.
    return new StdioClientTransport({
      command,
      args: [...args],
      env: { ...env },
      stderr: "ignore",
      maxBufferSize: maxBytes,
    });
  }
  const http = new StreamableHTTPClientTransport(new URL(transport.url), {
    requestInit: { headers: { ...transport.headers } },
    fetch: boundedFetch(maxBytes, (requestId, why) => {
      http.onmessage?.({ jsonrpc: "2.0", id: requestId, error: { code: STREAM_LOST, message: why } });
    }),
  });
  // Its types are looser than this project's.
  return http as Transport;
}

/** Code of the error that a request gets whose stream ended without its answer; outside of those that JSON-RPC knows. */
export const STREAM_LOST = -1;

/** An answer that is longer than it may be. */
class OversizeAnswer extends Error {
  constructor() {
    super("the answer is too long");
    this.name = "OversizeAnswer";
  }
}

/** Whether an error is of an answer that is longer than it may be, in the SDK's words or in ours, here or where it was passed on. */
export function isOversize(error: unknown): boolean {
  return error instanceof Error && /ReadBuffer exceeded maximum size|the answer is too long/.test(error.message);
}

/**
 * A fetch whose answers are bounded, and whose requests hear of it when the stream that should answer them is lost: the
 * SDK's transport lets them wait for their deadline. The stream of a server's own messages is not opened: nothing is asked of
 * clients here, and it would have no bound.
 */
function boundedFetch(maxBytes: number, onLost: (requestId: RequestId, why: string) => void): FetchLike {
  const underWay = new Map<RequestId, AbortController>();
  return async (url, init) => {
    const headers = new Headers(init?.headers);
    if (init?.method === "GET" && !headers.has("last-event-id")) return new Response(null, { status: 405 });
    const { requestId, cancels } = factsOf(init?.body);
    // The SDK tells the server that a request is cancelled, and leaves the connection to it open.
    if (cancels !== undefined) underWay.get(cancels)?.abort();
    const cancelled = new AbortController();
    const forget = (): void => {
      if (requestId !== undefined) underWay.delete(requestId);
    };
    if (requestId !== undefined) underWay.set(requestId, cancelled);
    const signal = AbortSignal.any([cancelled.signal, ...(init?.signal ? [init.signal] : [])]);
    const response = await fetch(url, { ...init, signal }).catch((error: unknown) => {
      forget();
      throw error;
    });
    if (response.body === null) {
      forget();
      return response;
    }
    const isStream = response.headers.get("content-type")?.startsWith("text/event-stream") ?? false;
    let bytes = 0;
    let canResume = false;
    const decoder = new TextDecoder();
    const lose = (error: unknown): void => {
      if (!isStream || requestId === undefined || canResume) return;
      const why = error instanceof OversizeAnswer ? error.message : "the stream was lost";
      setTimeout(() => onLost(requestId, why), error === undefined ? LAST_EVENT_MS : 0).unref();
    };
    const reader = response.body.getReader();
    const body = new ReadableStream<Uint8Array>({
      async pull(controller) {
        try {
          const { done, value } = await reader.read();
          if (done) {
            forget();
            controller.close();
            lose(undefined);
            return;
          }
          bytes += value.byteLength;
          if (bytes > maxBytes) throw new OversizeAnswer();
          // A stream that gives its events ids is read on by the SDK after a loss.
          if (isStream) canResume ||= /(^|[\r\n])id:/.test(decoder.decode(value, { stream: true }));
          controller.enqueue(value);
        } catch (error) {
          forget();
          if (error instanceof OversizeAnswer) canResume = false;
          controller.error(error);
          reader.cancel(error).catch(() => undefined);
          lose(error);
        }
      },
      cancel(reason) {
        forget();
        return reader.cancel(reason);
      },
    });
    const { status, statusText } = response;
    return new Response(body, { status, statusText, headers: response.headers });
  };
}

type RequestId = string | number;

/** Which request a message is, or which one it cancels. */
function factsOf(body: unknown): { readonly requestId?: RequestId; readonly cancels?: RequestId } {
  if (typeof body !== "string") return {};
  const { id, method, params } = JSON.parse(body) as {
    id?: RequestId;
    method?: string;
    params?: { requestId?: RequestId };
  };
  if (method === "notifications/cancelled" && params?.requestId !== undefined) return { cancels: params.requestId };
  return method === undefined || id === undefined ? {} : { requestId: id };
}
