import { gzipSync } from "node:zlib";
import { toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { Code, createClient } from "@connectrpc/connect";
import { encodeEnvelope } from "@connectrpc/connect/protocol";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionSchema } from "../../gen/parley/chat/v1/session_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { contentTypeOf, errorOf, framed, type RawAnswer, sendRaw } from "./raw-call.ts";
import { type ExpectedRefusal, expectRefusal, LEAKS } from "./refusals.ts";
import { type Wire, wires } from "./wires.ts";

// What no generated client sends: bytes that Connect refuses before any of our code sees a message. Each on each wire,
// to a unary RPC and to a streaming one.

let app: TestApp;
let sessionId: string;
let kept: string;

beforeAll(async () => {
  app = await startTestApp();
  ({ sessionId } = await chatClient().chat({ message: "keep this", userId: "u1" }));
  kept = await stored();
});
afterAll(() => app.close());

// Whatever came, the service goes on and has what it had.
afterEach(async () => expect(await stored()).toBe(kept));

function chatClient() {
  return createClient(ChatService, (wires[0] as Wire).transport(app.url));
}

async function stored(): Promise<string> {
  const sessions = createClient(SessionService, (wires[0] as Wire).transport(app.url));
  const { session } = await sessions.getSession({ sessionId });
  const { messages } = await sessions.listMessages({ sessionId });
  const { sessions: all } = await sessions.listSessions({ userId: "u1" });
  expect(session).toBeDefined();
  const bytes = Buffer.from(session === undefined ? [] : toBinary(SessionSchema, session)).toString("hex");
  return JSON.stringify([bytes, messages.map(({ content }) => content), all.length, app.simulated.callCount]);
}

const utf8 = (text: string) => new TextEncoder().encode(text);
const json = (value: unknown) => utf8(JSON.stringify(value));

/** `{message: <bytes>, user_id: "u1"}` in the binary format. */
function binaryWith(message: Uint8Array): Uint8Array {
  return new BinaryWriter()
    .tag(2, WireType.LengthDelimited)
    .bytes(message)
    .tag(3, WireType.LengthDelimited)
    .string("u1")
    .finish();
}

const notUtf8 = Uint8Array.of(0x68, 0xff, 0xfe, 0x80);
const malformed: ExpectedRefusal = { code: Code.InvalidArgument, reason: "MALFORMED_REQUEST" };
const tooLarge: ExpectedRefusal = { code: Code.ResourceExhausted, reason: "REQUEST_TOO_LARGE" };
const unsupported: ExpectedRefusal = { code: Code.Unimplemented, reason: "UNSUPPORTED_ENCODING" };

// A field or an enum's name that is not known is left out, as it is in binary: a newer client may send one.
const jsonMessages: [string, Uint8Array, ExpectedRefusal][] = [
  ["JSON that breaks off", utf8('{"message":"hel'), malformed],
  ["text that is no JSON", utf8("message=hello&user_id=u1"), malformed],
  ["a JSON array", json(["hello"]), malformed],
  ["a number for the message", json({ message: 5, userId: "u1" }), malformed],
  ["a word for a number", json({ message: "hello", userId: "u1", maxTokens: "many" }), malformed],
  ["a number beyond 32 bits", json({ message: "hello", userId: "u1", maxTokens: 2 ** 31 }), malformed],
  ["metadata that is no object", json({ message: "hello", userId: "u1", metadata: [1] }), malformed],
  ["JSON that is no UTF-8", Buffer.concat([utf8('{"userId":"u1","message":"'), notUtf8, utf8('"}')]), malformed],
  ["half a surrogate pair", utf8(String.raw`{"userId":"u1","message":"a\ud800b"}`), malformed],
  ["JSON nested 100,000 deep", utf8(`{"userId":"u1","message":"m","metadata":${'{"a":'.repeat(100_000)}`), malformed],
];

const binaryMessages: [string, Uint8Array, ExpectedRefusal][] = [
  ["bytes that are no message", utf8("hello there, this is text"), malformed],
  ["a message that breaks off", binaryWith(utf8("hello")).subarray(0, 5), malformed],
  ["a string that is no UTF-8", binaryWith(notUtf8), malformed],
  ["half a surrogate pair", binaryWith(Uint8Array.of(0xed, 0xa0, 0x80)), malformed],
];

const rpcs = [
  ["Chat", false],
  ["StreamChat", true],
] as const;

describe.each(wires)("on $name", (wire) => {
  describe.each(rpcs)("%s", (rpc, stream) => {
    const path = `/parley.chat.v1.ChatService/${rpc}`;
    const type = contentTypeOf(wire, stream);

    const send = (body: Uint8Array, headers: Record<string, string> = {}): Promise<RawAnswer> =>
      sendRaw(app.url, { path, body, headers: { "content-type": type, ...headers } }, wire.httpVersion);

    const refused = (answer: RawAnswer, expected: ExpectedRefusal): void => {
      expectRefusal(errorOf(wire, stream, answer), expected);
      expect(answer.text).not.toMatch(LEAKS);
      expect(answer.header.get("x-request-id")).toMatch(/./);
    };

    test.each(wire.json ? jsonMessages : binaryMessages)("%s is refused", async (_, message, expected) => {
      refused(await send(framed(wire, stream, message)), expected);
    });

    test("a message of more than a MiB is refused", async () => {
      const text = "x".repeat(1_024 * 1_024);
      const message = wire.json ? json({ message: text, userId: "u1" }) : binaryWith(utf8(text));
      refused(await send(framed(wire, stream, message)), tooLarge);
    });

    test("a small body that unpacks to more than a MiB is refused", async () => {
      const text = "x".repeat(8 * 1_024 * 1_024);
      const packed = gzipSync(wire.json ? json({ message: text, userId: "u1" }) : binaryWith(utf8(text)));
      expect(packed.byteLength).toBeLessThan(64 * 1_024);
      refused(await send(compressed(wire, stream, packed), encodingHeader(wire, stream, "gzip")), tooLarge);
    });

    test("bytes that are not what their compression says are refused", async () => {
      const body = compressed(wire, stream, utf8("this was never packed"));
      refused(await send(body, encodingHeader(wire, stream, "gzip")), malformed);
    });

    test("a compression that is not known is refused", async () => {
      refused(await send(compressed(wire, stream, utf8("?")), encodingHeader(wire, stream, "zstd")), unsupported);
    });

    test("a deadline of more than an hour, and one that cannot be read, are refused", async () => {
      const message = wire.json ? json({ message: "hello", userId: "u1" }) : binaryWith(utf8("hello"));
      const body = framed(wire, stream, message);
      const name = wire.protocol === "connect" ? "connect-timeout-ms" : "grpc-timeout";
      const tooLong = wire.protocol === "connect" ? "3600001" : "3601S";
      refused(await send(body, { [name]: tooLong }), { code: Code.InvalidArgument, reason: "DEADLINE_TOO_LONG" });
      refused(await send(body, { [name]: "soon" }), malformed);
    });

    test("a content type that is none of ours is answered 415 with the error as JSON", async () => {
      for (const contentType of ["text/plain", "application/xml", "application/jsonp", "multipart/form-data"]) {
        const answer = await send(utf8("hello"), { "content-type": contentType });
        expect(answer.status).toBe(415);
        expectRefusal(errorOf({ protocol: "connect" }, false, answer), unsupported);
        expect(answer.text).not.toMatch(LEAKS);
      }
    });

    test("another HTTP method than POST is answered 405 with the error as JSON", async () => {
      for (const method of ["GET", "PUT", "DELETE"]) {
        const answer = await sendRaw(app.url, { method, path }, wire.httpVersion);
        expect(answer.status).toBe(405);
        expect(answer.header.get("allow")).toBe("POST");
        expectRefusal(errorOf({ protocol: "connect" }, false, answer), malformed);
      }
    });

    // A unary call of Connect has no envelopes.
    if (wire.protocol === "connect" && !stream) return;

    test("envelopes that break off are refused", async () => {
      const whole = encodeEnvelope(0, wire.json ? json({ message: "hello", userId: "u1" }) : binaryWith(utf8("hello")));
      for (const body of [whole.subarray(0, 3), whole.subarray(0, whole.length - 2)]) {
        refused(await send(body), malformed);
      }
    });

    test("no message, and one more than one, are refused", async () => {
      const one = encodeEnvelope(0, wire.json ? json({ message: "hello", userId: "u1" }) : binaryWith(utf8("hello")));
      refused(await send(new Uint8Array()), malformed);
      refused(await send(Buffer.concat([one, one])), malformed);
    });
  });

  test("an RPC that is not there is refused in the protocol's form", async () => {
    for (const path of ["/parley.chat.v1.ChatService/Shout", "/parley.chat.v9.ChatService/Chat"]) {
      const answer = await sendRaw(
        app.url,
        { path, headers: { "content-type": contentTypeOf(wire, false) } },
        wire.httpVersion,
      );
      expectRefusal(errorOf(wire, false, answer), { code: Code.Unimplemented, reason: "UNKNOWN_METHOD" });
      expect(answer.status).toBe(wire.protocol === "connect" ? 404 : 200);
    }
  });
});

function compressed({ protocol }: Wire, stream: boolean, packed: Uint8Array): Uint8Array {
  return protocol === "connect" && !stream ? packed : encodeEnvelope(1, packed);
}

function encodingHeader({ protocol }: Wire, stream: boolean, encoding: string): Record<string, string> {
  if (protocol !== "connect") return { "grpc-encoding": encoding };
  return stream ? { "connect-content-encoding": encoding } : { "content-encoding": encoding };
}
