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
  ["HTTP/1.1", plain, "http/1.1"],
  ["HTTP/2 over TLS", secured, "h2"],
] as const)("over %s", (_, service, protocolName) => {
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
    const probe = (name: string): Promise<unknown> =>
      page.evaluate(`probe(${JSON.stringify(protocol)}, ${JSON.stringify(name)})`);

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
      expect(await probe("emptyMessages")).toEqual({ code: Code.InvalidArgument, reason: "INVALID_FIELD" });
    });

    // A browser has six connections over HTTP/1.1, each for a call at a time.
    test.runIf(protocolName === "h2")("200 streams at a time, cancelled at once", async () => {
      expect(await probe("manyStreams")).toEqual({ begun: 200, cancelled: 200, after: true });
    });
  });
});
