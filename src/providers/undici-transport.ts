import { Agent, request } from "undici";
import type { ModelTransport, TransportResponse } from "./model-transport.ts";

/** The transport on Node: undici's request, which costs less than fetch, on a pool of connections that are kept open. */
export function createUndiciTransport(): ModelTransport & { close(): Promise<void> } {
  // Deadlines are the provider's: it knows what it waits for.
  const dispatcher = new Agent({ headersTimeout: 0, bodyTimeout: 0, keepAliveTimeout: 30_000 });
  return {
    async fetch(url, { method, headers, body, signal }) {
      const response = await request(url, {
        dispatcher,
        method: method as "POST",
        headers: Object.fromEntries(headers),
        body: body ?? null,
        signal,
      });
      return new UndiciResponse(url, response);
    },
    readBody(response, { onChunk, signal }) {
      const { body } = response as UndiciResponse;
      return new Promise((resolve, reject) => {
        const fail = (error: unknown): void => {
          signal.removeEventListener("abort", aborted);
          body.destroy();
          reject(error);
        };
        const aborted = (): void => fail(signal.reason);
        if (signal.aborted) return aborted();
        signal.addEventListener("abort", aborted);
        body.on("data", (chunk: Buffer) => {
          try {
            onChunk(chunk);
          } catch (error) {
            fail(error);
          }
        });
        body.once("error", (error) => fail(signal.aborted ? signal.reason : error));
        body.once("end", () => {
          signal.removeEventListener("abort", aborted);
          resolve();
        });
      });
    },
    close: () => dispatcher.destroy(),
  };
}

type RequestResult = Awaited<ReturnType<typeof request>>;

class UndiciResponse implements TransportResponse {
  readonly url: string;
  readonly #result: RequestResult;
  #headers: Headers | undefined;

  constructor(url: string, result: RequestResult) {
    this.url = url;
    this.#result = result;
  }

  get ok(): boolean {
    return this.status >= 200 && this.status < 300;
  }

  get status(): number {
    return this.#result.statusCode;
  }

  get statusText(): string {
    return "";
  }

  get headers(): Headers {
    this.#headers ??= new Headers(
      Object.entries(this.#result.headers).flatMap(([name, value]): [string, string][] =>
        value === undefined ? [] : [[name, Array.isArray(value) ? value.join(", ") : value]],
      ),
    );
    return this.#headers;
  }

  get body(): RequestResult["body"] {
    return this.#result.body;
  }

  text(): Promise<string> {
    return this.#result.body.text();
  }

  json(): Promise<unknown> {
    return this.#result.body.json();
  }
}
