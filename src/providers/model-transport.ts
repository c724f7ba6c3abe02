/**
 * How requests to a model server travel. The OpenAI client says what a request is (address, headers, authentication); it
 * is sent and its answer is read here, since the client's own way costs more than everything else in a turn
 * (docs/decisions/2026-11-24-model-requests-are-sent-by-us.md).
 */
export interface ModelTransport {
  /** Sends a request; resolves with the answer's head. Rejects as `fetch` does: with the signal's reason when that is aborted. */
  send(request: TransportRequest): Promise<TransportResponse>;
}

export interface TransportRequest {
  readonly url: string;
  readonly method: "GET" | "POST";
  readonly headers: Readonly<Record<string, string>>;
  /** JSON; absent with GET. */
  readonly body?: string;
  /** Ends the request, and the reading of its answer. */
  readonly signal: AbortSignal;
}

export interface TransportResponse {
  readonly status: number;
  readonly headers: Headers;
  /**
   * Hands each piece of the body to `onChunk`, in order; resolves at the body's end, or as soon as `onChunk` returns true:
   * it has all that it wants. Rejects when the body is cut, with the signal's reason when that is aborted, and with whatever
   * `onChunk` throws; then the connection is closed. To be called once.
   */
  read(onChunk: (chunk: Uint8Array) => boolean): Promise<void>;
}
