import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { eventually } from "./eventually.ts";
import { type FaultProxy, startFaultProxy } from "./fault-proxy.ts";

// A fault of the network takes its time, or the connection; it never puts bytes into another order, as TCP does not.

/** A client behind a proxy, what its server got, and how that answers. */
async function startTalk() {
  let server: Socket | undefined;
  let [asked, answered] = ["", ""];
  const listener = createServer((socket) => {
    server = socket;
    socket.on("data", (piece) => {
      asked += String(piece);
    });
  });
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  const address = listener.address();
  const proxy = await startFaultProxy({ port: typeof address === "object" && address !== null ? address.port : 0 });
  const client = connect(proxy.port, "127.0.0.1");
  client.on("data", (piece) => {
    answered += String(piece);
  });
  onTestFinished(async () => {
    await proxy.stop();
    client.destroy();
    listener.close();
  });
  await eventually(() => expect(server).toBeDefined());
  return {
    proxy,
    asked: () => asked,
    answered: () => answered,
    ask: (text: string) => client.write(text),
    answer: (text: string) => server?.write(text),
  };
}

const healed: { name: string; begin: (proxy: FaultProxy) => void }[] = [
  { name: "slow", begin: (proxy) => proxy.slow(300) },
  { name: "stalled", begin: (proxy) => proxy.stall() },
  {
    name: "slow, then stalled",
    begin: (proxy) => {
      proxy.slow(300);
      setTimeout(proxy.stall, 50);
    },
  },
];

test.each(healed)("what was $name comes before what is sent when all is well again", async ({ begin }) => {
  const { proxy, ask, answer, asked, answered } = await startTalk();
  begin(proxy);
  ask("1");
  answer("a");
  // Both stand in the proxy by then.
  await new Promise((resolve) => setTimeout(resolve, 100));
  proxy.heal();
  ask("2");
  answer("b");
  await eventually(() => expect([asked(), answered()]).toEqual(["12", "ab"]));
});
