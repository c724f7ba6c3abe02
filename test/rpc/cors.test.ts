import { describe, expect, test } from "vitest";
import { startTestApp } from "../support/parley-app.ts";
import { useTestApp } from "../support/use-app.ts";
import { sendRaw } from "./raw-call.ts";

const LISTED = "https://app.example.com";

const app = useTestApp({ env: { CORS_ORIGINS: `${LISTED}, https://other.example.com` } });

const path = "/parley.chat.v1.SessionService/CreateSession";
const body = new TextEncoder().encode('{"userId":"u1"}');

describe.each(["1.1", "2"] as const)("over HTTP/%s", (httpVersion) => {
  const preflight = (origin: string, headers: Record<string, string> = {}) =>
    sendRaw(
      app.url,
      { method: "OPTIONS", path, headers: { origin, "access-control-request-method": "POST", ...headers } },
      httpVersion,
    );
  const call = (headers: Record<string, string>, url = app.url) =>
    sendRaw(url, { path, body, headers: { "content-type": "application/json", ...headers } }, httpVersion);
  const corsOf = (header: Headers) => [...header.keys()].filter((name) => name.startsWith("access-control-"));

  test("an origin on the list may call, is named and not *, and sees what clients need", async () => {
    const { status, header } = await call({ origin: LISTED });
    expect(status).toBe(200);
    expect(header.get("access-control-allow-origin")).toBe(LISTED);
    expect(header.get("access-control-allow-credentials")).toBe("true");
    expect(header.get("vary")).toMatch(/\bOrigin\b/);
    const exposed = header.get("access-control-expose-headers")?.toLowerCase().split(", ");
    for (const name of ["grpc-status", "grpc-message", "grpc-status-details-bin", "x-request-id"])
      expect(exposed).toContain(name);
  });

  test("an error is for a listed origin to read too", async () => {
    for (const [headers, sent] of [
      [{ "content-type": "text/plain" }, "hello"],
      [{ "content-type": "application/json" }, "{"],
    ] as const) {
      const request = { path, body: new TextEncoder().encode(sent), headers: { ...headers, origin: LISTED } };
      const { status, header } = await sendRaw(app.url, request, httpVersion);
      expect(status).toBeGreaterThanOrEqual(400);
      expect(header.get("access-control-allow-origin")).toBe(LISTED);
    }
  });

  test("a preflight of a listed origin allows the methods and headers of all three protocols", async () => {
    const { status, header } = await preflight(LISTED);
    expect(status).toBe(204);
    expect(header.get("access-control-allow-origin")).toBe(LISTED);
    expect(header.get("access-control-allow-methods")?.split(", ")).toEqual(
      expect.arrayContaining(["GET", "POST", "DELETE"]),
    );
    const allowed = header.get("access-control-allow-headers")?.toLowerCase().split(", ");
    for (const name of [
      "content-type",
      "connect-protocol-version",
      "connect-timeout-ms",
      "grpc-timeout",
      "x-grpc-web",
      "x-user-agent",
      "authorization",
      "x-request-id",
      "traceparent",
    ])
      expect(allowed).toContain(name);
    expect(Number(header.get("access-control-max-age"))).toBeGreaterThan(0);
  });

  test.each([
    "https://evil.example.com",
    "https://app.example.com.evil.test",
    "http://app.example.com",
    "https://app.example.com:8443",
    "null",
    "*",
  ])("%s is not on the list: its preflight is refused and its answers say nothing for it", async (origin) => {
    const refused = await preflight(origin);
    expect([refused.status, corsOf(refused.header)]).toEqual([403, []]);
    const answer = await call({ origin });
    expect(corsOf(answer.header)).toEqual([]);
    // A cache must not give this answer to a listed origin.
    expect(answer.header.get("vary")).toMatch(/\bOrigin\b/);
  });

  test("who names no origin is no browser on another one, and gets no such headers", async () => {
    const { status, header } = await call({});
    expect([status, corsOf(header)]).toEqual([200, []]);
  });

  test("without a list no other origin may call", async () => {
    const closed = await startTestApp();
    try {
      const answer = await call({ origin: LISTED }, closed.url);
      expect(corsOf(answer.header)).toEqual([]);
    } finally {
      await closed.close();
    }
  });
});
