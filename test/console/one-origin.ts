import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** The network between a browser and the replicas of a service: one origin, whichever of them answers. */
export interface OneOrigin {
  readonly url: string;
  /** New connections go to that replica. */
  leadTo(url: string): void;
  /** Cuts what is connected; until `mend` nobody can connect. */
  cut(): void;
  /** What the replica says is held back, or let through again; what the browser says is not. */
  hold(held: boolean): void;
  mend(): void;
  close(): Promise<void>;
}

export async function startOneOrigin(firstUrl: string): Promise<OneOrigin> {
  let target = new URL(firstUrl);
  let severed = false;
  let held = false;
  const pairs = new Set<{ near: Socket; far: Socket }>();
  const server = createServer((near) => {
    if (severed) return void near.destroy();
    const far = connect(Number(target.port), target.hostname);
    const pair = { near, far };
    pairs.add(pair);
    const end = (): void => {
      pairs.delete(pair);
      near.destroy();
      far.destroy();
    };
    near.on("error", end).on("close", end).pipe(far);
    far.on("error", end).on("close", end);
    if (!held) far.pipe(near);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const cut = (): void => {
    severed = true;
    for (const { near } of pairs) near.destroy();
  };
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    leadTo(url) {
      target = new URL(url);
    },
    cut,
    hold(hold) {
      held = hold;
      for (const { near, far } of pairs) {
        if (hold) far.unpipe(near);
        else far.pipe(near);
      }
    },
    mend() {
      severed = false;
    },
    async close() {
      cut();
      server.close();
      await once(server, "close");
    },
  };
}
