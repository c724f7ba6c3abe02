import type { ModelTransport } from "./model-transport.ts";

/** The transport where there is only fetch, such as in edge runtimes. */
export function createFetchTransport(): ModelTransport {
  return {
    async send({ url, signal, ...init }) {
      const response = await fetch(url, { ...init, signal });
      return {
        status: response.status,
        headers: response.headers,
        read: (onChunk) => read(response.body, { onChunk, signal }),
      };
    },
  };
}

async function read(
  body: ReadableStream<Uint8Array> | null,
  { onChunk, signal }: { onChunk: (chunk: Uint8Array) => boolean; signal: AbortSignal },
): Promise<void> {
  if (body === null) return;
  const reader = body.getReader();
  const cancel = (): void => void reader.cancel(signal.reason).catch(() => undefined);
  signal.addEventListener("abort", cancel);
  try {
    for (;;) {
      const { done, value } = await reader.read();
      signal.throwIfAborted();
      if (done) return;
      if (onChunk(value)) return cancel();
    }
  } catch (error) {
    cancel();
    throw error;
  } finally {
    signal.removeEventListener("abort", cancel);
  }
}
