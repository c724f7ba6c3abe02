import { once } from "node:events";
import * as http from "node:http";
import * as http2 from "node:http2";
import { type AddressInfo, connect, type Server } from "node:net";
import type { Duplex } from "node:stream";
import { expect, onTestFinished, test } from "vitest";
import { readRest } from "../../src/rpc/rest-of-request.ts";
import { eventually } from "../support/eventually.ts";
import { startTestApp } from "../support/parley-app.ts";
import { framed } from "./raw-call.ts";

// A caller that goes on sending after it was refused gets its answer; if it goes on for too long, it is cut off.

type Version = "1.1" | "2";

const CHUNK = Buffer.alloc(64 * 1_024, " ");

/** A call of Chat that says that much is to come; what its caller writes is the request's body. */
async function beginCall(url: string, version: Version): Promise<{ body: Duplex; answered: Promise<unknown> }> {
  if (version === "2") {
    const session = http2.connect(url);
    onTestFinished(() => session.destroy());
    const body = session.request({ ":method": "POST", ":path": PATH, "content-type": "application/json" });
    body.resume();
    return { body, answered: once(body, "response").then(([headers]) => headers[":status"]) };
  }
  const { hostname, port } = new URL(url);
  const body = connect({ host: hostname, port: Number(port) });
  onTestFinished(() => void body.destroy());
  await once(body, "connect");
  body.write(
    `POST ${PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000000000\r\n\r\n`,
  );
  return { body, answered: once(body, "data").then(([head]) => Number(/^HTTP\/1.1 (\d+)/.exec(String(head))?.[1])) };
}

const PATH = "/parley.chat.v1.ChatService/Chat";

/** Writes until the other side has had enough. */
async function sendForEver(body: Duplex): Promise<void> {
  const closed = new Promise<void>((resolve) => void body.once("close", resolve));
  // A write that meets the end of its connection.
  body.on("error", () => undefined);
  while (!body.destroyed) {
    if (!body.write(CHUNK)) await Promise.race([closed, once(body, "drain").catch(() => undefined)]);
  }
  await closed;
}

// With its length ahead and without; Connect reads the ones and the others in different ways.
test.each([
  ["connect", "application/json", true],
  ["connect", "application/json", false],
  ["grpc-web", "application/grpc-web+proto", true],
  ["grpc-web", "application/grpc-web+proto", false],
] as const)(
  "too large a message leaves its HTTP/1.1 connection usable: %s %s, its length told: %s",
  async (...call) => {
    const [protocol, type, isLengthTold] = call;
    const app = await startTestApp();
    onTestFinished(() => app.close());
    const { hostname, port } = new URL(app.url);
    const connection = connect({ host: hostname, port: Number(port) });
    onTestFinished(() => void connection.destroy());
    const message = Buffer.from(framed({ protocol }, false, Buffer.alloc(3_000_000, " ")));
    const size = message.byteLength;
    const body = isLengthTold
      ? message
      : Buffer.concat([Buffer.from(`${size.toString(16)}\r\n`), message, Buffer.from("\r\n0\r\n\r\n")]);
    const length = isLengthTold ? `Content-Length: ${size}` : "Transfer-Encoding: chunked";
    let received = "";
    connection.setEncoding("latin1").on("data", (text: string) => {
      received += text;
    });
    for (const answers of [1, 2, 3]) {
      connection.write(`POST ${PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: ${type}\r\n${length}\r\n\r\n`);
      connection.write(body);
      await eventually(() => expect(received.match(/larger( |%20)than( |%20)1( |%20)MiB/g)).toHaveLength(answers));
    }
  },
);

test.each<Version>(["1.1", "2"])("bytes without end are cut off, of a call over HTTP/%s", async (version) => {
  const app = await startTestApp();
  onTestFinished(() => app.close());
  const { body, answered } = await beginCall(app.url, version);
  const cutOff = sendForEver(body);
  expect(await answered).toBe(429);
  await cutOff;
});

test.each<Version>(["1.1", "2"])("bytes that come slowly are cut off, of a call over HTTP/%s", async (version) => {
  const answer = (_: unknown, response: http.ServerResponse | http2.Http2ServerResponse): void => {
    readRest(response, { mostBytes: Number.POSITIVE_INFINITY, mostMs: 10 });
    response.statusCode = 429;
    response.end("refused");
  };
  // Node's own bound for what comes after an answer, of a caller that sends nothing at all, must not be what ends it.
  const server: Server =
    version === "2" ? http2.createServer(answer) : http.createServer({ keepAliveTimeout: 0 }, answer);
  onTestFinished(() => void server.close());
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { body, answered } = await beginCall(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, version);
  const closed = once(body, "close");
  body.write(" ");
  expect(await answered).toBe(429);
  await closed;
});
