import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { Code } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { callerOf, USER } from "../app/clients.ts";
import { contentTypeOf, errorOf, framed, sendRaw } from "../rpc/raw-call.ts";
import { drained, expectRefusal, LEAKS, refusalOf } from "../rpc/refusals.ts";
import { type Wire, wires } from "../rpc/wires.ts";
import { eventually } from "../support/eventually.ts";
import { buildEdge, type EdgeBundle, type EdgeWorker, startWorker } from "./worker.ts";

// What the edge refuses before anything of it runs, in real workerd.

let bundle: EdgeBundle;
beforeAll(async () => {
  bundle = await buildEdge();
});
afterAll(() => bundle?.remove());

async function start(bindings: Record<string, string>): Promise<EdgeWorker> {
  // Nobody listens there: no call of these tests comes as far as a model.
  const worker = await startWorker(bundle, { OPENAI_BASE_URL: "http://127.0.0.1:9/v1", ...bindings });
  onTestFinished(() => worker.stop());
  return worker;
}

/** Workerd speaks HTTP/1.1 only, and gRPC over it can be tried by hand. */
const edgeWires = [
  ...wires.filter(({ protocol, httpVersion }) => protocol !== "grpc" && httpVersion === "1.1"),
  ...wires.filter(({ protocol }) => protocol === "grpc"),
];

const rpcs = [
  ["Chat", false],
  ["StreamChat", true],
] as const;

async function callByHand(url: string, { wire, rpc, stream }: { wire: Wire; rpc: string; stream: boolean }) {
  const path = `/parley.chat.v1.ChatService/${rpc}`;
  const headers = { "content-type": contentTypeOf(wire, stream), "x-request-id": `id-of-${rpc}` };
  const answer = await sendRaw(url, { path, headers, body: framed(wire, stream, new Uint8Array()) }, "1.1");
  return { answer, error: errorOf(wire, stream, answer) };
}

test("gRPC is refused with its reason, whatever its codec and whatever is called; gRPC-Web is not", async () => {
  const { url } = await start({});
  const send = (contentType: string, path: string) =>
    sendRaw(url, { path, headers: { "content-type": contentType }, body: new Uint8Array(5) }, "1.1");
  for (const contentType of [
    "application/grpc",
    "application/grpc+proto",
    "application/grpc+json",
    "Application/GRPC",
  ]) {
    for (const rpc of ["Chat", "StreamChat", "Nothing"]) {
      const answer = await send(contentType, `/parley.chat.v1.ChatService/${rpc}`);
      expect(answer.status).toBe(200);
      expect(answer.header.get("content-type")).toBe("application/grpc");
      const error = errorOf({ protocol: "grpc" }, false, answer);
      expectRefusal(error, { code: Code.Unimplemented, reason: "GRPC_NOT_POSSIBLE" });
    }
  }
  const web = await send("application/grpc-web+proto", "/parley.chat.v1.ChatService/Chat");
  expect(errorOf({ protocol: "grpc-web" }, false, web)?.code).toBe(Code.InvalidArgument);
});

describe("a configuration that cannot be used", () => {
  const SECRET = "sk-do-not-tell";
  const broken = { MAX_TOKENS: "many", CORS_ORIGINS: "*", REDIS_URL: `http://user:${SECRET}@redis` };

  test.each(edgeWires)("is INTERNAL in the caller's protocol, with the request's id: $name", async (wire) => {
    const { url } = await start(broken);
    for (const [rpc, stream] of rpcs) {
      const { answer, error } = await callByHand(url, { wire, rpc, stream });
      expectRefusal(error, { code: Code.Internal, reason: "INTERNAL" });
      expect(answer.header.get("x-request-id")).toBe(`id-of-${rpc}`);
      expect(answer.text).not.toMatch(LEAKS);
      expect(answer.text).not.toMatch(/MAX_TOKENS|CORS_ORIGINS|many/);
      expect(answer.text).not.toContain(SECRET);
    }
    if (wire.protocol === "grpc") return;
    // One call, on a connection of its own: workerd closes those of requests that it did not read.
    const { chat } = callerOf({ url }, wire);
    const refusal = await refusalOf(drained(chat.streamChat({ message: "hello", userId: USER })));
    expectRefusal(refusal, { code: Code.Internal, reason: "INTERNAL" });
  });

  test("is logged with each problem and the request's id, and without any value", async () => {
    const worker = await start(broken);
    await fetch(worker.url, { headers: { "x-request-id": "one" } });
    const made = (await fetch(worker.url)).headers.get("x-request-id");
    expect(made).toMatch(/^[\w-]{36}$/);
    const lines = await eventually(() => {
      const found = worker.logs().filter(({ msg }) => msg === "request failed");
      expect(found.map((line) => line.request_id)).toEqual(["one", made]);
      return found;
    });
    for (const line of lines) {
      expect(line).toMatchObject({ level: "error", service: "parley-edge" });
      expect(line.problems).toEqual([
        expect.stringMatching(/^REDIS_URL: /),
        expect.stringMatching(/^MAX_TOKENS: /),
        expect.stringMatching(/^CORS_ORIGINS: /),
      ]);
    }
    expect(JSON.stringify(worker.logs())).not.toContain(SECRET);
  });
});

describe("Redis", () => {
  /** Counts who connects, and hangs up. */
  async function startCounter() {
    let connections = 0;
    const server = createServer((socket) => {
      connections++;
      socket.destroy();
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    onTestFinished(() => void server.close());
    return {
      url: `redis://127.0.0.1:${(server.address() as AddressInfo).port}`,
      connections: () => connections,
    };
  }

  test("is connected to by calls that need it, and by no others", async () => {
    const redis = await startCounter();
    const { url } = await start({ REDIS_URL: redis.url });
    const [json] = edgeWires;
    const { chat, sessions } = callerOf({ url }, json);
    expect((await refusalOf(chat.chat({ userId: USER }))).code).toBe(Code.InvalidArgument);
    expect((await refusalOf(sessions.getSession({ sessionId: "a b" }))).code).toBe(Code.InvalidArgument);
    expect((await refusalOf(chat.previewChat({ userId: USER }))).code).toBe(Code.InvalidArgument);
    expect((await fetch(url)).status).toBe(404);
    expect(redis.connections()).toBe(0);

    const refusal = await refusalOf(sessions.getSession({ sessionId: "s1" }));
    expectRefusal(refusal, { code: Code.Unavailable, reason: "STORE_UNAVAILABLE" });
    expect(redis.connections()).toBeGreaterThan(0);
  });
});
