import { once } from "node:events";
import * as http2 from "node:http2";
import { createConnection } from "node:net";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { Code, createContextKey, type HandlerContext, type Interceptor } from "@connectrpc/connect";
import { findTrailerError } from "@connectrpc/connect/protocol-grpc";
import { compressionGzip } from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import {
  ChatResponseSchema,
  ChatService,
  StreamChatRequestSchema,
  StreamChatResponseSchema,
} from "../../gen/parley/chat/v1/chat_service_pb.js";
import { Failure } from "../../src/failure.ts";
import { observeCalls } from "../../src/rpc/call-observer.ts";
import { type HttpServer, startHttpServer } from "../../src/rpc/http-server.ts";
import type { RefusedCall } from "../../src/rpc/request-gate.ts";
import { createRpcHandler } from "../../src/rpc/routes.ts";
import { eventually } from "../support/eventually.ts";
import { envelopes, type RawAnswer, sendRaw } from "./raw-call.ts";

// Plain gRPC is served on streams, without Connect's handler. Each case runs on both, and they must not be told apart.

/** What the handlers below do, by the request's message. */
const behaviours: Record<string, (context: HandlerContext) => AsyncGenerator<string>> = {
  async *three() {
    yield* ["one", "two", "three"];
  },
  async *none() {},
  async *large() {
    yield "large ".repeat(1_000);
    yield "small";
  },
  async *headers(context) {
    context.responseHeader.set("x-head", "set");
    context.responseTrailer.set("x-trail", "set too");
    yield `${context.requestHeader.get("x-asked")} ${context.url.replace(/:\d+/, "")} ${context.values.get(KEY)}`;
  },
  // biome-ignore lint/correctness/useYield: it fails before
  async *refused() {
    throw new Failure("RATE_LIMITED", { retryAfterMs: 1_500 });
  },
  async *defect() {
    yield "one";
    throw new TypeError("a secret");
  },
  async *unwritable() {
    try {
      yield "one";
      yield UNWRITABLE;
    } finally {
      unwound++;
    }
  },
  async *late(context) {
    yield "one";
    expect(context.timeoutMs() ?? 0).toBeLessThanOrEqual(200);
    context.signal.throwIfAborted();
    await new Promise((_, reject) => context.signal.addEventListener("abort", () => reject(context.signal.reason)));
  },
};

/** Makes a message that protobuf refuses to write. */
const UNWRITABLE = "unwritable";

const KEY = createContextKey("", { description: "test" });

const ended: { server: string; code: string }[] = [];
const refused: { server: string; call: RefusedCall }[] = [];
const signals: { server: string; signal: AbortSignal }[] = [];
let unwound = 0;
let pulled = 0;
const servers = new Map<string, HttpServer>();
const NAMES = ["streams", "connect"] as const;

beforeAll(async () => {
  for (const name of NAMES) servers.set(name, await start(name));
});
afterAll(async () => {
  for (const server of servers.values()) await server.close(100);
});

async function start(server: (typeof NAMES)[number]): Promise<HttpServer> {
  const observer = observeCalls([() => ({ ended: ({ code }) => ended.push({ server, code }) })]);
  const marker: Interceptor = (next) => (request) => {
    request.contextValues.set(KEY, "marked");
    return next(request.stream ? { ...request } : request);
  };
  const { handler, streamHandler } = createRpcHandler({
    corsOrigins: [],
    interceptors: [observer, marker],
    onRefused: (call) => refused.push({ server, call }),
    fallback: (_, response) => response.destroy(),
    routes: (router) =>
      router.service(ChatService, {
        async chat({ message }, context) {
          signals.push({ server, signal: context.signal });
          let response = "";
          for await (const text of (behaviours[message] as NonNullable<(typeof behaviours)[string]>)(context))
            response += text;
          return { response };
        },
        async *streamChat({ message }, context) {
          signals.push({ server, signal: context.signal });
          if (message === "endless") {
            for (pulled = 0; ; pulled++) yield delta("much text ".repeat(1_000));
          }
          for await (const text of (behaviours[message] as NonNullable<(typeof behaviours)[string]>)(context))
            yield text === UNWRITABLE ? usage(2 ** 31) : delta(text);
        },
      }),
  });
  const parts = server === "streams" ? { handler, streamHandler } : { handler };
  return startHttpServer({ host: "127.0.0.1", port: 0, maxStreamsPerConnection: 100, ...parts });
}

function delta(text: string): MessageInitShape<typeof StreamChatResponseSchema> {
  return { sequence: 1n, event: { case: "textDelta", value: { agent: "a", text } } };
}

function usage(promptTokens: number): MessageInitShape<typeof StreamChatResponseSchema> {
  return { sequence: 2n, event: { case: "usageRecorded", value: { agent: "a", tokenUsage: { promptTokens } } } };
}

const HEADERS = { "content-type": "application/grpc+proto", te: "trailers", "x-request-id": "r1" };

function body(message: string): Buffer {
  return envelope(toBinary(StreamChatRequestSchema, create(StreamChatRequestSchema, { message })));
}

function envelope(message: Uint8Array, { flags = 0, length = message.length } = {}): Buffer {
  const bytes = Buffer.alloc(5 + message.length);
  bytes[0] = flags;
  bytes.writeUInt32BE(length, 1);
  bytes.set(message, 5);
  return bytes;
}

async function send(name: string, rpc: string, headers: Record<string, string>, bytes: Uint8Array) {
  ended.length = 0;
  refused.length = 0;
  const path = `/parley.chat.v1.ChatService/${rpc}`;
  const answer = await sendRaw(
    servers.get(name)?.url ?? "",
    { path, headers: { ...HEADERS, ...headers }, body: bytes },
    "2",
  );
  answer.header.delete("date");
  return answer;
}

/** Resets the stream of a request without an end, by hand: Node's client ends a request first. Gives the server time to see it. */
async function resetAmid(
  port: number,
  { path, bytes, delayMs }: { path: string; bytes: Uint8Array; delayMs: number },
): Promise<void> {
  const field = (name: string, value: string): Buffer =>
    Buffer.concat(
      [[0, name.length], Buffer.from(name), [value.length], Buffer.from(value)].map((part) => Buffer.from(part)),
    );
  const fields = Object.entries({ ":method": "POST", ":scheme": "http", ":path": path, ":authority": "h", ...HEADERS });
  const socket = createConnection({ host: "127.0.0.1", port });
  socket.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  socket.write(frame(FRAME.settings, { stream: 0 }));
  socket.write(frame(FRAME.headers, { flags: 4, payload: Buffer.concat(fields.map((each) => field(...each))) }));
  socket.write(frame(FRAME.data, { payload: bytes }));
  if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs));
  socket.write(frame(FRAME.reset, { payload: Buffer.from([0, 0, 0, http2.constants.NGHTTP2_CANCEL]) }));
  socket.resume();
  await new Promise((resolve) => setTimeout(resolve, 50));
  socket.destroy();
}

/** Types of HTTP/2 frames (RFC 9113, 6). */
const FRAME = { data: 0, headers: 1, reset: 3, settings: 4 } as const;

function frame(
  type: number,
  { flags = 0, stream = 1, payload = Buffer.alloc(0) }: { flags?: number; stream?: number; payload?: Uint8Array },
): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** All that a client can tell of an answer. */
async function seen(rpc: string, answer: RawAnswer) {
  const messages = await Promise.all(
    envelopes(answer.body).map(async ({ flags, data }) => {
      const bytes = flags === 0 ? data : await compressionGzip.decompress(data, 1_000_000);
      const message =
        rpc === "Chat" ? fromBinary(ChatResponseSchema, bytes) : fromBinary(StreamChatResponseSchema, bytes);
      return { flags, message };
    }),
  );
  const { status, header, trailer } = answer;
  // Without a message ours says all in its headers, and Connect's handler waits for the trailers.
  if (messages.length === 0) return { status, metadata: [...header, ...trailer].sort(), messages };
  return { status, header: [...header], trailer: [...trailer].sort(), messages };
}

describe.each(["Chat", "StreamChat"])("%s", (rpc) => {
  test.each([
    ["an answer", "three", {}],
    ["an empty answer", "none", {}],
    ["headers, trailers and context values", "headers", { "x-asked": "asked" }],
    ["a large message that the client takes compressed", "large", { "grpc-accept-encoding": "identity,gzip" }],
    ["a large message that it does not", "large", { "grpc-accept-encoding": "snappy" }],
    ["a refusal with its details", "refused", {}],
    ["a defect amid the answer", "defect", {}],
    ["a deadline that passes", "late", { "grpc-timeout": "200m" }],
    ["a deadline that had passed", "late", { "grpc-timeout": "0m" }],
    ["a deadline that does not", "three", { "grpc-timeout": "1M" }],
    ["a deadline that is too long", "three", { "grpc-timeout": "9H" }],
    ["a deadline that cannot be read", "three", { "grpc-timeout": "soon" }],
    ["a compression that nobody knows", "three", { "grpc-encoding": "snappy" }],
    ["another spelling of the content type", "three", { "content-type": "application/GRPC" }],
  ] as const)("%s", async (_, behaviour, headers) => {
    const answers = [];
    for (const name of NAMES) {
      const answer = await send(name, rpc, headers, body(behaviour));
      await eventually(() => expect(ended.length + refused.length).toBe(1));
      const told = [
        ...ended.map(({ code }) => code),
        ...refused.map(({ call }) => [call.rpc, call.requestId, call.error.message]),
      ];
      answers.push({ ...(await seen(rpc, answer)), told });
      expect(answer.text).not.toContain("secret");
    }
    expect(answers[0]).toEqual(answers[1]);
  });

  test("a refusal says its status in the headers, the only place where Envoy's outlier detection looks", async () => {
    const { header, trailer } = await send("streams", rpc, {}, body("refused"));
    expect(header.get("grpc-status")).toMatch(/^[1-9]/);
    expect([...trailer]).toEqual([]);
  });

  const whole = body("three");
  test.each([
    ["no message", Buffer.alloc(0)],
    ["half a head", whole.subarray(0, 3)],
    ["half a message", whole.subarray(0, 9)],
    ["two messages", Buffer.concat([whole, whole])],
    ["bytes that are no message", envelope(Buffer.from([0xff, 0xff, 0xff]))],
    ["text that is no UTF-8", envelope(Buffer.from([0x12, 1, 0xff]))],
    ["a compressed message without a compression", envelope(whole.subarray(5), { flags: 1 })],
    ["a message of more than a MiB", envelope(Buffer.alloc(1_048_577))],
    ["a message that says that it is of more than a MiB", envelope(Buffer.alloc(10), { length: 2_000_000 })],
  ])("%s in the request", async (_, bytes) => {
    const answers = [];
    for (const name of NAMES) {
      const answer = await send(name, rpc, {}, bytes);
      const error = findTrailerError(answer.trailer) ?? findTrailerError(answer.header);
      expect(Code[error?.code ?? 0]).toMatch(/./);
      answers.push(await seen(rpc, answer));
    }
    expect(answers[0]).toEqual(answers[1]);
  });

  test("a request in many pieces", async () => {
    for (const name of NAMES) {
      const client = http2.connect(servers.get(name)?.url ?? "");
      const stream = client.request({ ":method": "POST", ":path": `/parley.chat.v1.ChatService/${rpc}`, ...HEADERS });
      for (const byte of whole) {
        stream.write(Buffer.from([byte]));
        await new Promise((resolve) => setImmediate(resolve));
      }
      stream.end();
      stream.resume();
      const [trailers] = await once(stream, "trailers");
      expect(trailers["grpc-status"]).toBe("0");
      client.close();
    }
  });

  test("a client that goes away ends the call's signal, which a call that has ended well ends too", async () => {
    for (const name of NAMES) {
      signals.length = 0;
      ended.length = 0;
      const client = http2.connect(servers.get(name)?.url ?? "");
      const stream = client.request({ ":method": "POST", ":path": `/parley.chat.v1.ChatService/${rpc}`, ...HEADERS });
      stream.on("error", () => undefined);
      stream.end(body("late"));
      await eventually(() => expect(signals).toHaveLength(1));
      stream.close(http2.constants.NGHTTP2_CANCEL);
      await eventually(() => expect(ended).toEqual([{ server: name, code: "canceled" }]));
      expect(signals[0]?.signal.reason).toMatchObject({ code: Code.Canceled });
      await send(name, rpc, {}, body("three"));
      await eventually(() => expect(signals[1]?.signal.aborted).toBe(true));
      client.close();
    }
  });

  test.each([
    ["before its message", Buffer.alloc(0)],
    ["amid its message", whole.subarray(0, 9)],
    ["before its request's end", whole],
  ])("a client that resets its stream %s has cancelled its call", async (_, bytes) => {
    for (const delayMs of [0, 50]) {
      ended.length = 0;
      refused.length = 0;
      signals.length = 0;
      await resetAmid(servers.get("streams")?.port ?? 0, {
        path: `/parley.chat.v1.ChatService/${rpc}`,
        bytes,
        delayMs,
      });
      expect(signals).toEqual([]);
      expect(refused).toEqual([]);
      // A unary call has not begun, for Connect, before its message is there.
      expect(ended).toEqual(rpc === "Chat" ? [] : [{ server: "streams", code: "canceled" }]);
    }
  });

  test("a connection that is lost ends the call's signal", async () => {
    for (const name of NAMES) {
      signals.length = 0;
      const client = http2.connect(servers.get(name)?.url ?? "");
      client.on("error", () => undefined);
      const stream = client.request({ ":method": "POST", ":path": `/parley.chat.v1.ChatService/${rpc}`, ...HEADERS });
      stream.on("error", () => undefined);
      stream.end(body("late"));
      await eventually(() => expect(signals).toHaveLength(1));
      client.destroy();
      await eventually(() => expect(signals[0]?.signal.aborted).toBe(true));
    }
  });
});

test("a client that does not read stops the handler", async () => {
  for (const name of NAMES) {
    const client = http2.connect(servers.get(name)?.url ?? "");
    const stream = client.request({ ":method": "POST", ":path": "/parley.chat.v1.ChatService/StreamChat", ...HEADERS });
    stream.on("error", () => undefined);
    stream.end(body("endless"));
    await once(stream, "response");
    let before = -1;
    await vi.waitFor(
      () => {
        const stands = pulled === before;
        before = pulled;
        expect(stands).toBe(true);
      },
      { interval: 100 },
    );
    // The stream's window and what Node holds, in messages of 10 kB.
    expect(pulled).toBeLessThan(50);
    stream.close(http2.constants.NGHTTP2_CANCEL);
    client.close();
  }
});

test("a message that cannot be written ends its stream, and the handler behind it", async () => {
  for (const name of NAMES) {
    unwound = 0;
    const answer = await send(name, "StreamChat", {}, body("unwritable"));
    expect(findTrailerError(answer.trailer)?.code).toBe(Code.Internal);
    await eventually(() => expect(unwound).toBe(1));
    expect(ended).toHaveLength(1);
  }
});

test("a client that asks whether it may send its request is told so", async () => {
  const client = http2.connect(servers.get("streams")?.url ?? "");
  const path = "/parley.chat.v1.ChatService/StreamChat";
  const stream = client.request({ ":method": "POST", ":path": path, ...HEADERS, expect: "100-continue" });
  stream.once("continue", () => stream.end(body("three")));
  stream.resume();
  const [trailers] = await once(stream, "trailers");
  expect(trailers["grpc-status"]).toBe("0");
  client.close();
});
