import type { ServerResponse } from "node:http";
import type { Http2ServerResponse } from "node:http2";

/** Writes the body of a response as fast as its client reads it. */
export interface ResponseWriter {
  /** The client is gone, or has all. */
  readonly closed: boolean;
  /** Resolves when there is room for more; to false if the client is gone by then. */
  write(text: string): Promise<boolean>;
}

/** To be made before anything is awaited, so that it sees the client go. */
export function responseWriter(response: ServerResponse | Http2ServerResponse): ResponseWriter {
  const reply = response as ServerResponse;
  // Over HTTP/2 a response does not say that it is destroyed, and what is written to it then never drains.
  let closed = false;
  reply.once("close", () => {
    closed = true;
  });
  return {
    get closed() {
      return closed;
    },
    async write(text) {
      if (closed) return false;
      if (text === "" || reply.write(text)) return true;
      await new Promise<void>((resolve) => {
        const settle = (): void => {
          reply.off("drain", settle);
          reply.off("close", settle);
          resolve();
        };
        reply.on("drain", settle);
        reply.on("close", settle);
      });
      return !closed;
    },
  };
}
