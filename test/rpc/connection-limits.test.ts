import { once } from "node:events";
import * as http2 from "node:http2";
import { createConnection } from "node:net";
import { text } from "node:stream/consumers";
import { createClient } from "@connectrpc/connect";
import { afterEach, expect, test } from "vitest";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { startTestApp, type TestApp, type TestAppOptions } from "../support/parley-app.ts";
import { framed, sendRaw } from "./raw-call.ts";
import { type Wire, wires } from "./wires.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});

async function start(options: TestAppOptions = {}): Promise<TestApp> {
  const app = await startTestApp(options);
  cleanups.push(() => app.close());
  return app;
}

async function expectServing(app: TestApp): Promise<void> {
  for (const wire of wires) {
    const sessions = createClient(SessionService, wire.transport(app.url));
    expect((await sessions.createSession({ userId: "u1" })).session?.userId).toBe("u1");
  }
}

test("a connection has as many calls at a time as configured; one more waits until one has ended", async () => {
  const app = await start({ model: "sim-10x20", env: { MAX_STREAMS_PER_CONNECTION: "2" } });
  const session = http2.connect(app.url);
  cleanups.push(() => session.destroy());
  await once(session, "remoteSettings");
  expect(session.remoteSettings.maxConcurrentStreams).toBe(2);
  const events: string[] = [];
  const calls = [1, 2, 3].map(async () => {
    const call = session.request({
      ":method": "POST",
      ":path": "/parley.chat.v1.ChatService/StreamChat",
      "content-type": "application/grpc+json",
    });
    call.once("response", () => events.push("begun"));
    call.once("trailers", (trailers) => events.push(`ended ${trailers["grpc-status"]}`));
    call.resume();
    call.end(framed({ protocol: "grpc" }, true, Buffer.from('{"message":"hello","userId":"u1"}')));
    await once(call, "close");
  });
  await Promise.all(calls);
  expect(events.slice(0, 3)).toEqual(["begun", "begun", "ended 0"]);
  expect(events.toSorted()).toEqual(["begun", "begun", "begun", "ended 0", "ended 0", "ended 0"]);
});

test("headers of more than 16 KiB are refused over HTTP/1.1 with 431", async () => {
  const app = await start();
  const headers = { "content-type": "application/json", "x-large": "x".repeat(16_384) };
  const answer = await sendRaw(app.url, { path: "/parley.chat.v1.ChatService/Chat", headers }, "1.1");
  expect(answer.status).toBe(431);
  await expectServing(app);
});

test("headers of more than 16 KiB are refused over h2c, of a connection's first call too", async () => {
  const app = await start();
  const session = http2.connect(app.url);
  cleanups.push(() => session.destroy());
  const send = async (size: number): Promise<unknown> => {
    const call = session.request({
      ":method": "POST",
      ":path": "/parley.chat.v1.ChatService/Chat",
      "x-large": "x".repeat(size),
    });
    call.end();
    const [headers] = await once(call, "response").catch((error: NodeJS.ErrnoException) => [{ ":status": error.code }]);
    return headers[":status"];
  };
  expect(await send(20_000)).toBeOneOf([431, "ERR_HTTP2_STREAM_ERROR"]);
  expect(session.remoteSettings.maxHeaderListSize).toBe(16_384);
  expect(await send(20_000)).toBeOneOf([431, "ERR_HTTP2_STREAM_ERROR"]);
  expect(await send(100)).toBe(415);
  await expectServing(app);
});

test("headers a little below the bound are taken", async () => {
  const app = await start();
  const headers = { "content-type": "application/json", "x-large": "x".repeat(15_000) };
  const body = Buffer.from('{"message":"hello","userId":"u1"}');
  for (const version of ["1.1", "2"] as const) {
    const answer = await sendRaw(app.url, { path: "/parley.chat.v1.ChatService/Chat", headers, body }, version);
    expect(answer.status).toBe(200);
  }
});

test.each([
  ["no HTTP at all", "hello there\r\n\r\n"],
  ["a TLS hello", "\u0016\u0003\u0001\u0002\u0000\u0001\u0000"],
  ["half an HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"],
  ["a header without a name", "POST / HTTP/1.1\r\n: x\r\n\r\n"],
  ["two lengths", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"],
])("%s gets its connection closed, and nothing else happens", async (_, bytes) => {
  const app = await start();
  const { hostname, port } = new URL(app.url);
  const socket = createConnection({ host: hostname, port: Number(port) });
  socket.on("error", () => undefined);
  socket.write(bytes, "latin1");
  expect(await text(socket)).not.toMatch(/node:|at .+:\d+:\d+|HPE_|Error/);
  await expectServing(app);
});

test("a client that goes away amid its request does no harm", async () => {
  const app = await start();
  const { hostname, port } = new URL(app.url);
  for (const bytes of ["P", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", CUT_REQUEST]) {
    const socket = createConnection({ host: hostname, port: Number(port) });
    await once(socket, "connect");
    socket.write(bytes);
    await new Promise<void>((resolve) => socket.write("", () => resolve()));
    socket.resetAndDestroy();
  }
  await expectServing(app);
  expect(app.logs.where({ level: "error" })).toEqual([]);
});

const CUT_REQUEST = [
  "POST /parley.chat.v1.ChatService/Chat HTTP/1.1",
  "Host: localhost",
  "Content-Type: application/json",
  "Content-Length: 100",
  "",
  '{"message":',
].join("\r\n");

test("20 messages of nearly a MiB at a time on one connection are all read", async () => {
  const app = await start();
  const wire = wires.find(({ protocol }) => protocol === "grpc") as Wire;
  const sessions = createClient(SessionService, wire.transport(app.url));
  const big = () =>
    sessions.createSession({ userId: "u1", metadata: { k: "v".repeat(1_000_000) } }).catch((error: unknown) => error);
  const ends = await Promise.all(Array.from({ length: 20 }, big));
  for (const end of ends) expect(end).toMatchObject({ code: 3 });
});

test.each([
  ["connect", "Chat", "application/json", undefined],
  ["connect", "StreamChat", "application/connect+proto", undefined],
  ["grpc-web", "Chat", "application/grpc-web+proto", undefined],
  ["grpc", "Chat", "application/grpc+proto", "8"],
  ["grpc", "StreamChat", "application/grpc", "8"],
])("a message that is refused before all of it is read ends its stream: %s %s", async (_, rpc, type, status) => {
  const app = await start();
  const session = http2.connect(app.url);
  cleanups.push(() => session.destroy());
  // More of them than the window of a connection has room for, if they were kept.
  for (let call = 0; call < 8; call++) {
    const path = `/parley.chat.v1.ChatService/${rpc}`;
    const stream = session.request({ ":method": "POST", ":path": path, "content-type": type });
    let trailers: http2.IncomingHttpHeaders = {};
    stream.on("trailers", (received) => {
      trailers = received;
    });
    const closed = once(stream, "close");
    const message = Buffer.alloc(2_000_000, " ");
    stream.end(type === "application/json" ? message : framed({ protocol: "grpc" }, true, message));
    stream.resume();
    await closed;
    expect(stream.rstCode).toBe(http2.constants.NGHTTP2_NO_ERROR);
    expect(trailers["grpc-status"]).toBe(status);
  }
  await expectServing(app);
});
