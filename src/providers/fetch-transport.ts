import type { ModelTransport } from "./model-transport.ts";

/** The transport where there is only fetch, such as in edge runtimes. */
export function createFetchTransport(): ModelTransport {
  return {
    async fetch(url, { method, headers, body, signal }) {
      return fetch(url, { method, headers, signal, ...(body === undefined ? {} : { body }) });
    },
    async readBody(response, { onChunk, signal }) {
      const { body } = response as Response;
      if (body === null) return;
      const reader = body.getReader();
      const aborted = (): void => void reader.cancel(signal.reason).catch(() => undefined);
      signal.addEventListener("abort", aborted);
      try {
        for (;;) {
          const { done, value } = await reader.read();
          signal.throwIfAborted();
          if (done) return;
          onChunk(value);
        }
      } catch (error) {
        aborted();
        throw error;
      } finally {
        signal.removeEventListener("abort", aborted);
      }
    },
  };
}
