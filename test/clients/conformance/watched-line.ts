import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { onTestFinished } from "vitest";

/** A way to a service, on which is seen what a client's library does not tell. */
export interface WatchedLine {
  readonly url: string;
  /** Connections that were made over it. */
  readonly connections: number;
  /** The opaque data of each PING of HTTP/2 that the service has answered (RFC 9113, 6.7), in hexadecimal. */
  readonly answeredPings: readonly string[];
}

const FRAME_HEAD_BYTES = 9;
const PING = 6;
const ACK = 1;

/** Opens one to a service that speaks HTTP/2 without TLS, until the test's end. */
export async function openWatchedLine(serviceUrl: string): Promise<WatchedLine> {
  const { hostname, port } = new URL(serviceUrl);
  const sockets = new Set<Socket>();
  const answeredPings: string[] = [];
  let connections = 0;
  const relay = createServer({ noDelay: true }, (client) => {
    connections += 1;
    const service = connect({ host: hostname, port: Number(port), noDelay: true });
    for (const [from, to] of [
      [client, service],
      [service, client],
    ] as const) {
      sockets.add(from);
      from.on("error", () => to.destroy()).on("close", () => to.destroy());
      from.pipe(to);
    }
    service.on(
      "data",
      createFrameReader((frame) => {
        if (frame[3] === PING && frame[4] === ACK) answeredPings.push(frame.toString("hex", FRAME_HEAD_BYTES));
      }),
    );
  });
  relay.listen(0, "127.0.0.1");
  await once(relay, "listening");
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    relay.close();
  });
  return {
    url: `http://127.0.0.1:${(relay.address() as AddressInfo).port}`,
    answeredPings,
    get connections() {
      return connections;
    },
  };
}

/** Puts a connection's bytes together to frames: length (24 bits), type, flags, stream, and what is in it. */
function createFrameReader(onFrame: (frame: Buffer) => void): (piece: Buffer) => void {
  let rest = Buffer.alloc(0);
  return (piece) => {
    rest = Buffer.concat([rest, piece]);
    while (rest.length >= FRAME_HEAD_BYTES) {
      const bytes = FRAME_HEAD_BYTES + rest.readUIntBE(0, 3);
      if (rest.length < bytes) return;
      onFrame(rest.subarray(0, bytes));
      rest = rest.subarray(bytes);
    }
  };
}
