import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code } from "@connectrpc/connect";
import { build } from "esbuild";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FinishReason } from "../../../gen/parley/chat/v1/turn_pb.js";
import { makeCertificate } from "../../support/certificate.ts";
import { launchChromium } from "../../support/chromium.ts";
import { useProbedService } from "./probed-service.ts";

// What the port looks like to connect-web in Chromium: over HTTP/1.1, and over TLS, where the browser takes HTTP/2.

const folder = await mkdtemp(join(tmpdir(), "parley-tls-"));
const files = { cert: join(folder, "cert.pem"), key: join(folder, "key.pem") };
const { cert, key } = await makeCertificate("localhost");
await writeFile(files.cert, cert);
await writeFile(files.key, key);
afterAll(() => rm(folder, { recursive: true }));

const plain = useProbedService();
const secured = useProbedService({ TLS_CERT: files.cert, TLS_KEY: files.key });

/** More than six connections would have over HTTP/1.1, and as many as Chromium has on one over HTTP/2 at most. */
const isOneConnections = (atOnce: number): boolean => atOnce > 6 && atOnce <= 256;

let browser: Browser;
let script: string;

beforeAll(async () => {
  browser = await launchChromium();
  const { outputFiles } = await build({
    entryPoints: [join(import.meta.dirname, "page.ts")],
    bundle: true,
    write: false,
    format: "iife",
    target: "es2023",
  });
  script = outputFiles[0]?.text ?? "";
});
afterAll(() => browser?.close());

describe.each([
  {
    over: "HTTP/1.1",
    service: plain,
    protocolName: "http/1.1",
    // A browser has so many connections to an origin, each for a call at a time.
    many: [{ name: "wholeStreams", count: 200, saw: { whole: 200, atOnce: 6 } }],
  },
  {
    over: "HTTP/2 over TLS",
    service: secured,
    protocolName: "h2",
    many: [
      { name: "wholeStreams", count: 1_000, saw: { whole: 1_000, atOnce: expect.toSatisfy(isOneConnections) } },
      { name: "brokenStreams", count: 200, saw: { begun: 200, cancelled: 200, after: true } },
    ],
  },
])("over $over", ({ service, protocolName, many }) => {
  let page: Page;
  beforeAll(async () => {
    const context = await browser.newContext({ ignoreHTTPSErrors: true, bypassCSP: true });
    page = await context.newPage();
    await page.goto(service.url);
    await page.evaluate(script);
  });
  afterAll(() => page?.context().close());

  test("the browser speaks that", async () => {
    const spoken = await page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol");
    expect(spoken).toBe(protocolName);
  });

  describe.each(["connect", "grpc-web"])("%s", (protocol) => {
    const probe = (name: string, count = 1): Promise<unknown> =>
      page.evaluate(`probe(${JSON.stringify(protocol)}, ${JSON.stringify(name)}, ${count})`);

    test("a deadline ends the call, and the turn goes on", async () => {
      expect(await probe("deadline")).toEqual({ code: Code.DeadlineExceeded, running: true });
    });

    test("a call that is cancelled ends a turn that is to end with it", async () => {
      expect(await probe("cancellation")).toEqual({ code: Code.Canceled, reason: FinishReason.CANCELLED });
    });

    test("large messages are taken, too large ones refused with their details", async () => {
      expect(await probe("largeMessages")).toEqual({
        replied: true,
        code: Code.ResourceExhausted,
        reason: "REQUEST_TOO_LARGE",
        after: true,
      });
    });

    test("an empty message is refused for its fields", async () => {
      const refusal = { code: Code.InvalidArgument, reason: "INVALID_FIELD" };
      expect(await probe("emptyMessages")).toEqual({ unary: refusal, streamed: refusal });
    });

    test("headers go and come; what the browser can decompress comes compressed", async () => {
      expect(await probe("headersAndCompression")).toEqual({
        replied: true,
        requestId: "probe-1",
        // Messages of gRPC-Web are compressed one by one, which connect-web does not ask for.
        compressed: protocol === "connect",
      });
    });

    test.each(many)("$count streams: $name", async ({ name, count, saw }) => {
      expect(await probe(name, count)).toEqual(saw);
    });
  });
});
