import { Agent, type Dispatcher } from "undici";
import type { ModelTransport, TransportRequest, TransportResponse } from "./model-transport.ts";

/** What is left of a body that nobody wants is read for this long, in milliseconds: its connection can then serve again. */
const REST_MS = 500;

/**
 * The transport on Node: undici's dispatch, whose pieces of a body come by a plain call. Its streams, and fetch above
 * them, cost more than all that is done with the text (DESIGN §8). On a pool of connections that are kept open.
 */
export function createUndiciTransport(): ModelTransport & { close(): Promise<void> } {
  // Deadlines are the provider's: it knows what it waits for.
  const dispatcher = new Agent({ headersTimeout: 0, bodyTimeout: 0, keepAliveTimeout: 30_000 });
  return {
    send: (request) => dispatch(dispatcher, request),
    close: () => dispatcher.destroy(),
  };
}

function dispatch(
  dispatcher: Dispatcher,
  { url, method, headers, body, signal }: TransportRequest,
): Promise<TransportResponse> {
  const { origin, pathname, search } = new URL(url);
  return new Promise((resolve, reject) => {
    let sending: Dispatcher.DispatchController | undefined;
    let answer: UndiciResponse | undefined;
    const aborted = (): void => {
      sending?.abort(asError(signal.reason));
      reject(signal.reason);
    };
    const over = (): void => signal.removeEventListener("abort", aborted);
    if (signal.aborted) return aborted();
    signal.addEventListener("abort", aborted, { once: true });
    const options = { origin, path: `${pathname}${search}`, method, headers, body: body ?? null };
    dispatcher.dispatch(options, {
      onRequestStart(controller) {
        sending = controller;
        // It may have waited for a connection.
        if (signal.aborted) controller.abort(asError(signal.reason));
      },
      onResponseStart(controller, status, received) {
        answer = new UndiciResponse({ status, received, controller, signal });
        resolve(answer);
      },
      onResponseData: (_controller, chunk) => answer?.push(chunk),
      onResponseEnd() {
        over();
        answer?.end({});
      },
      onResponseError(_controller, error) {
        over();
        answer?.end({ error });
        reject(error);
      },
    });
  });
}

type ReceivedHeaders = Readonly<Record<string, string | string[] | undefined>>;

/** How a body ended: by itself, or by an error. */
interface BodyEnd {
  readonly error?: Error;
}

/** An answer on its way in. Pieces of its body that come before the reader wait for it. */
class UndiciResponse implements TransportResponse {
  readonly status: number;
  readonly #received: ReceivedHeaders;
  readonly #controller: Dispatcher.DispatchController;
  readonly #signal: AbortSignal;
  readonly #early: Buffer[] = [];
  #ended: BodyEnd | undefined;
  #reader: { onChunk(chunk: Buffer): void; onEnd(end: BodyEnd): void } | undefined;

  constructor({
    status,
    received,
    controller,
    signal,
  }: {
    status: number;
    received: ReceivedHeaders;
    controller: Dispatcher.DispatchController;
    signal: AbortSignal;
  }) {
    this.status = status;
    this.#received = received;
    this.#controller = controller;
    this.#signal = signal;
  }

  get headers(): Headers {
    return new Headers(
      Object.entries(this.#received).flatMap(([name, value]): [string, string][] =>
        value === undefined ? [] : [[name, Array.isArray(value) ? value.join(", ") : value]],
      ),
    );
  }

  push(chunk: Buffer): void {
    if (this.#reader === undefined) this.#early.push(chunk);
    else this.#reader.onChunk(chunk);
  }

  end(end: BodyEnd): void {
    this.#ended = end;
    this.#reader?.onEnd(end);
  }

  read(onChunk: (chunk: Uint8Array) => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      let enough = false;
      let rest: ReturnType<typeof setTimeout> | undefined;
      const reader = {
        onChunk: (chunk: Buffer): void => {
          if (enough) return;
          try {
            enough = onChunk(chunk);
          } catch (error) {
            enough = true;
            this.#controller.abort(asError(error));
            reject(error);
            return;
          }
          if (!enough) return;
          if (this.#ended === undefined) {
            rest = setTimeout(() => this.#controller.abort(new Error("no end")), REST_MS);
          }
          resolve();
        },
        onEnd: ({ error }: BodyEnd): void => {
          clearTimeout(rest);
          if (error === undefined) resolve();
          else reject(this.#signal.aborted ? this.#signal.reason : error);
        },
      };
      this.#reader = reader;
      for (const chunk of this.#early.splice(0)) reader.onChunk(chunk);
      if (this.#ended !== undefined) reader.onEnd(this.#ended);
    });
  }
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error("aborted", { cause: reason });
}
