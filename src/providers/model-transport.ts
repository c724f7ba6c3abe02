/**
 * How model calls travel. The OpenAI client makes requests with `fetch`; the streamed body is read here and not by the
 * client, whose reader costs most of a stream's CPU (DESIGN §8).
 */
export interface ModelTransport {
  /** As the OpenAI client calls it: a POST or GET with string headers and body. */
  fetch(url: string, init: TransportRequest): Promise<TransportResponse>;
  /**
   * Hands each piece of a response's body to `onChunk`, in order; resolves at the body's end. Rejects when it is cut, with
   * the signal's reason when that is aborted, and with whatever `onChunk` throws; then the connection is closed.
   */
  readBody(
    response: TransportResponse,
    reading: { onChunk(chunk: Uint8Array): void; signal: AbortSignal },
  ): Promise<void>;
}

export interface TransportRequest {
  readonly method: string;
  readonly headers: Headers;
  readonly body?: string;
  readonly signal: AbortSignal;
}

/** The parts of a fetch Response that the OpenAI client uses. */
export interface TransportResponse {
  readonly ok: boolean;
  readonly status: number;
  readonly statusText: string;
  readonly url: string;
  readonly headers: Headers;
  text(): Promise<string>;
  json(): Promise<unknown>;
}
