import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";

/** A connection to a server that can be made bad while it is used. */
export interface FaultProxy {
  readonly port: number;
  /** Connections are cut, and new ones at once after they are made. */
  cut(): void;
  /** All that comes is passed on this much later, in milliseconds. */
  slow(delayMs: number): void;
  /** Nothing is passed on any more; connections stay open. What came meanwhile follows when the stall ends. */
  stall(): void;
  /**
   * Each piece that comes, from either side, is lost with this probability, and its connection with it, as TCP gives up
   * what it cannot deliver: a command that was done may have no answer. The same seed loses the same pieces of the same
   * traffic.
   */
  lose(probability: number, seed?: number): void;
  /** All is well again. */
  heal(): void;
  stop(): Promise<void>;
}

/** Starts a TCP proxy on a free port of the loopback. */
export async function startFaultProxy(target: { readonly port: number }): Promise<FaultProxy> {
  let isCut = false;
  let stalled = false;
  let delayMs = 0;
  let lost = 0;
  let random = seeded(1);
  /** Each passes on what may be, one per direction of a connection. */
  const pumps = new Set<() => void>();
  const sockets = new Set<Socket>();

  const pass = (from: Socket, to: Socket): void => {
    /** In order: whatever changes meanwhile, nothing overtakes what came before it, as TCP has it. */
    const waiting: { readonly piece: Buffer; readonly dueMs: number }[] = [];
    let timer: ReturnType<typeof setTimeout> | undefined;
    const pump = (): void => {
      clearTimeout(timer);
      for (let next = waiting[0]; next !== undefined && !stalled; next = waiting[0]) {
        const earlyMs = next.dueMs - performance.now();
        if (earlyMs > 0) {
          timer = setTimeout(pump, earlyMs);
          return;
        }
        waiting.shift();
        if (!to.destroyed) to.write(next.piece);
      }
    };
    pumps.add(pump);
    from.on("data", (piece: Buffer) => {
      if (lost > 0 && random() < lost) {
        from.destroy();
        to.destroy();
        return;
      }
      waiting.push({ piece, dueMs: performance.now() + delayMs });
      pump();
    });
    from.on("close", () => {
      clearTimeout(timer);
      pumps.delete(pump);
      to.destroy();
    });
    from.on("error", () => to.destroy());
  };
  const server = createServer({ noDelay: true }, (client) => {
    sockets.add(client);
    client.on("close", () => sockets.delete(client));
    client.on("error", () => undefined);
    if (isCut) {
      client.destroy();
      return;
    }
    const upstream = connect({ port: target.port, host: "127.0.0.1", noDelay: true });
    pass(client, upstream);
    pass(upstream, client);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  const heal = (): void => {
    isCut = false;
    stalled = false;
    delayMs = 0;
    lost = 0;
    for (const pump of pumps) pump();
  };
  const cutAll = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    port: typeof address === "object" && address !== null ? address.port : 0,
    cut() {
      isCut = true;
      cutAll();
    },
    slow(ms) {
      delayMs = ms;
    },
    stall() {
      stalled = true;
    },
    lose(probability, seed = 1) {
      lost = probability;
      random = seeded(seed);
    },
    heal,
    async stop() {
      heal();
      cutAll();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Numbers from 0 to 1 that a seed decides (mulberry32). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
