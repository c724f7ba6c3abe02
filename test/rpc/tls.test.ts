import { once } from "node:events";
import * as http2 from "node:http2";
import * as https from "node:https";
import * as net from "node:net";
import * as tls from "node:tls";
import { afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type TlsFiles, watchTlsFiles } from "../../src/platform/tls-files.ts";
import { type HttpServer, startHttpServer } from "../../src/rpc/http-server.ts";
import { makeCertificate } from "../support/certificate.ts";
import { eventually } from "../support/eventually.ts";

type Pair = Awaited<ReturnType<typeof makeCertificate>>;

let first: Pair;
let second: Pair;
beforeAll(async () => {
  [first, second] = await Promise.all([makeCertificate("first"), makeCertificate("second")]);
});

let disk: Record<string, string>;
let problems: string[];
let files: TlsFiles;
let server: HttpServer;
beforeEach(async () => {
  disk = { cert: first.cert, key: first.key };
  problems = [];
  files = watchTlsFiles({
    certPath: "cert",
    keyPath: "key",
    readFile: (path) => disk[path] ?? fail(),
    onProblem: (sentence) => problems.push(sentence),
    intervalMs: 10,
  });
  server = await startHttpServer({
    host: "127.0.0.1",
    port: 0,
    maxStreamsPerConnection: 10,
    tls: files,
    handler(request, response) {
      response.setHeader("content-type", "text/plain");
      response.end(`HTTP/${request.httpVersion}`);
    },
  });
});
afterEach(async () => {
  files.stop();
  await server.close(1_000);
});

function fail(): never {
  throw new Error("ENOENT");
}

async function overH2(ca: string): Promise<string> {
  const session = http2.connect(server.url, { ca });
  // The stream tells of it too.
  session.on("error", () => undefined);
  const stream = session.request({ ":path": "/" });
  let body = "";
  for await (const chunk of stream) body += String(chunk);
  session.close();
  return body;
}

function overH1(ca: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = https.get(server.url, { ca, agent: false }, async (response) => {
      let body = "";
      for await (const chunk of response) body += String(chunk);
      resolve(body);
    });
    request.on("error", reject);
  });
}

/** Common name of the certificate that a new connection is shown, and the protocol that it is offered. */
async function shown(ALPNProtocols?: string[]): Promise<{ name: unknown; protocol: string | false | null }> {
  const socket = tls.connect({
    port: server.port,
    host: "127.0.0.1",
    rejectUnauthorized: false,
    ...(ALPNProtocols && { ALPNProtocols }),
  });
  await once(socket, "secureConnect");
  const name = socket.getPeerCertificate().subject.CN;
  const protocol = socket.alpnProtocol;
  socket.destroy();
  return { name, protocol };
}

describe("a port with a certificate", () => {
  it("speaks HTTP/2 and HTTP/1.1 within TLS, as the client asks by ALPN", async () => {
    expect(server.url).toMatch(/^https:/);
    expect(await overH2(first.cert)).toBe("HTTP/2.0");
    expect(await overH1(first.cert)).toBe("HTTP/1.1");
    expect(await shown(["h2", "http/1.1"])).toEqual({ name: "first", protocol: "h2" });
    expect(await shown(["http/1.1"])).toEqual({ name: "first", protocol: "http/1.1" });
    expect((await shown()).protocol).toBe(false);
  });

  it("answers nothing without TLS, and goes on", async () => {
    const socket = net.connect(server.port, "127.0.0.1");
    socket.on("error", () => undefined);
    socket.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    const chunks: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    await once(socket, "close");
    expect(Buffer.concat(chunks).toString("latin1")).not.toContain("HTTP/1.1 200");
    expect(await overH1(first.cert)).toBe("HTTP/1.1");
  });

  it("shows a new certificate to new connections, and lets the open ones be", async () => {
    const session = http2.connect(server.url, { ca: first.cert });
    await once(session, "connect");
    disk = { cert: second.cert, key: second.key };
    await eventually(async () => expect((await shown()).name).toBe("second"));
    expect(await overH2(second.cert)).toBe("HTTP/2.0");
    await expect(overH2(first.cert)).rejects.toThrow();
    const stream = session.request({ ":path": "/" });
    let body = "";
    for await (const chunk of stream) body += String(chunk);
    expect(body).toBe("HTTP/2.0");
    session.close();
    expect(problems).toEqual([]);
  });

  it("keeps the old one while the new pair does not fit together, and says so once", async () => {
    disk = { cert: second.cert, key: first.key };
    await eventually(() => expect(problems).toHaveLength(1));
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(problems).toHaveLength(1);
    expect((await shown()).name).toBe("first");
    disk = {};
    await eventually(() => expect(problems).toHaveLength(2));
    disk = { cert: second.cert, key: second.key };
    await eventually(async () => expect((await shown()).name).toBe("second"));
  });

  it("closes though somebody is in the middle of a handshake", async () => {
    const socket = net.connect(server.port, "127.0.0.1");
    socket.on("error", () => undefined);
    await once(socket, "connect");
    const startedMs = performance.now();
    await server.close(50);
    expect(performance.now() - startedMs).toBeLessThan(5_000);
  });
});

it("a pair that does not fit together is said in a sentence, without its content", () => {
  const start = () =>
    watchTlsFiles({
      certPath: "cert",
      keyPath: "key",
      readFile: (path) => (path === "cert" ? second.cert : first.key),
      onProblem: () => undefined,
    });
  expect(start).toThrow(/^TLS_CERT and TLS_KEY cannot be used: [A-Z0-9_]+\.$/);
});
