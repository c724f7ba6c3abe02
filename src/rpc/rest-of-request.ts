import type { ServerResponse } from "node:http";
import { constants, type Http2ServerResponse } from "node:http2";
import { finished, type Readable } from "node:stream";

/**
 * What is read of a request after its answer: room for a message sixteen times too large, time for one that comes over a
 * slow line. Units: bytes, milliseconds.
 */
const REST: RestBounds = { mostBytes: 16 * 1_024 * 1_024, mostMs: 30_000 };

interface RestBounds {
  readonly mostBytes: number;
  readonly mostMs: number;
}

/**
 * Reads what is left of a request that is answered before all of it was read, and throws it away. Unread, an HTTP/2 stream
 * would stay open, and what it has sent would use up the window of its connection; an HTTP/1.1 connection would stand still
 * until it is idle for too long; a browser would wait for its answer in vain. To be called before the answer is written.
 *
 * Who sends more than `bounds`, or for longer, is cut off: over HTTP/2 the stream is reset without an error (RFC 9113, 8.1),
 * over HTTP/1.1 the connection is destroyed. A reset at once would spare the rest, but after a few of them Node 26.10 refuses
 * the connection's new streams.
 */
export function readRest(response: ServerResponse | Http2ServerResponse, bounds: RestBounds = REST): void {
  if ("stream" in response) {
    const { stream } = response;
    if (stream === undefined || stream.readableEnded) return;
    // The answer's last event.
    stream.once("wantTrailers", () => throwAway(stream, bounds, () => stream.close(constants.NGHTTP2_NO_ERROR)));
    return;
  }
  const { req: request } = response;
  const { socket } = request;
  if (request.complete) return;
  // Node throws away what nobody has begun to read: of any length, and for as long as it comes.
  request.read(0);
  response.once("finish", () => throwAway(request, bounds, () => socket.destroy()));
}

/** Whoever read the request has stopped: its answer is written. */
function throwAway(request: Readable, { mostBytes, mostMs }: RestBounds, cutOff: () => void): void {
  if (request.readableEnded) return;
  const timer = setTimeout(cutOff, mostMs);
  finished(request, { writable: false }, () => clearTimeout(timer));
  let bytes = 0;
  request.removeAllListeners("readable");
  request.removeAllListeners("data");
  request.on("data", (piece: Buffer) => {
    bytes += piece.byteLength;
    if (bytes > mostBytes) cutOff();
  });
  request.resume();
}
