import type { OutgoingHttpHeaders, ServerHttp2Stream } from "node:http2";

/** A byte of flags, four of length (gRPC over HTTP/2, "Length-Prefixed-Message"). */
export const ENVELOPE_HEAD_BYTES = 5;

/** What is gathered in a tick is written when it has become this much, in bytes: what Node's streams hold by default. */
const GATHER_BYTES = 16_384;

/** Writes an answer's messages to an HTTP/2 stream. */
export interface EnvelopeWriter {
  /**
   * Writes a message. Messages of one tick go out together, in one frame: each write of its own costs more than its
   * message. What comes back is to be waited for before the next one, if anything does: the client reads slowly.
   */
  write(flags: number, message: Uint8Array): Promise<void> | undefined;
  /**
   * Ends the answer with these trailers. Where no message was sent they are its headers ("Trailers-Only" in gRPC over HTTP/2):
   * Envoy's outlier detection looks for `grpc-status` there and nowhere else.
   */
  end(trailers: OutgoingHttpHeaders): void;
  /** Whether nobody reads any more. */
  readonly closed: boolean;
}

/** @param head Makes the answer's headers when the first message is sent, or at the end where there is none. */
export function createEnvelopeWriter(stream: ServerHttp2Stream, head: () => OutgoingHttpHeaders): EnvelopeWriter {
  let gathered: { flags: number; message: Uint8Array }[] = [];
  let gatheredBytes = 0;
  let scheduled = false;
  let ended = false;

  const begin = (): void => {
    if (!stream.headersSent) stream.respond({ ":status": 200, ...head() }, { waitForTrailers: true });
  };
  const take = (): Buffer => {
    const bytes = Buffer.allocUnsafe(gatheredBytes);
    let at = 0;
    for (const { flags, message } of gathered) {
      bytes[at] = flags;
      bytes.writeUInt32BE(message.byteLength, at + 1);
      bytes.set(message, at + ENVELOPE_HEAD_BYTES);
      at += ENVELOPE_HEAD_BYTES + message.byteLength;
    }
    gathered = [];
    gatheredBytes = 0;
    return bytes;
  };
  const flush = (): void => {
    scheduled = false;
    if (gatheredBytes === 0 || ended || isClosed()) return;
    begin();
    stream.write(take());
  };
  const isClosed = (): boolean => stream.closed || stream.destroyed;

  return {
    get closed() {
      return isClosed();
    },
    write(flags, message) {
      gathered.push({ flags, message });
      gatheredBytes += ENVELOPE_HEAD_BYTES + message.byteLength;
      if (gatheredBytes >= GATHER_BYTES) flush();
      else if (!scheduled) {
        scheduled = true;
        process.nextTick(flush);
      }
      return stream.writableNeedDrain ? drained(stream) : undefined;
    },
    end(trailers) {
      if (ended) return;
      ended = true;
      if (isClosed()) return;
      if (!stream.headersSent && gatheredBytes === 0) {
        stream.respond({ ":status": 200, ...head(), ...trailers }, { endStream: true });
        return;
      }
      stream.once("wantTrailers", () => stream.sendTrailers(trailers));
      begin();
      stream.end(gatheredBytes === 0 ? undefined : take());
    },
  };
}

/** Resolves when more can be written, or nobody reads any more. */
function drained(stream: ServerHttp2Stream): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      stream.off("drain", done);
      stream.off("close", done);
      resolve();
    };
    stream.on("drain", done);
    stream.on("close", done);
    if (stream.destroyed) done();
  });
}
