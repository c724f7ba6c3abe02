import { request } from "node:http";
import { text } from "node:stream/consumers";
import { afterEach, expect, test } from "vitest";
import { type OpsServer, startOpsServer } from "../../src/platform/ops-server.ts";
import type { Readiness } from "../../src/platform/readiness.ts";

const servers: OpsServer[] = [];

afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.close()));
});

const READY: Readiness = { ready: true, draining: false, checks: { store: { ok: true, reason: "" } } };

test("livez says only that the process answers, whatever else is wrong", async () => {
  const server = await start({ readyz: () => ({ ...READY, ready: false }) });
  expect(await get(server, "/livez")).toMatchObject({ status: 200, body: "ok\n" });
});

test.each([
  [200, READY],
  [
    503,
    {
      ready: false,
      draining: false,
      checks: { store: { ok: false, reason: "Redis does not answer" }, model: { ok: true, reason: "" } },
    },
  ],
])("readyz answers %d with the checks", async (status, readiness) => {
  const server = await start({ readyz: () => readiness });
  const answer = await get(server, "/readyz");
  expect(answer).toMatchObject({ status, contentType: "application/json; charset=utf-8" });
  expect(JSON.parse(answer.body)).toEqual(readiness);
});

test("metrics are served under the registry's content type", async () => {
  const server = await start({ metrics: async () => "parley_turns_total 1\n" });
  expect(await get(server, "/metrics")).toEqual({
    status: 200,
    contentType: "text/plain; version=0.0.4; charset=utf-8",
    body: "parley_turns_total 1\n",
    allow: undefined,
  });
});

test.each([
  ["fail", () => Promise.reject(new Error("redis://:secret@host"))],
  ["hang", () => new Promise<string>(() => {})],
])("metrics that %s are 503 without the error's text", async (_, metrics) => {
  const server = await start({ metrics });
  const answer = await get(server, "/metrics");
  expect(answer).toMatchObject({ status: 503, body: "cannot be collected now\n" });
});

test("a query changes nothing, and HEAD gets the headers alone", async () => {
  const server = await start({});
  expect(await get(server, "/livez?verbose=1")).toMatchObject({ status: 200 });
  expect(await get(server, "/livez", "HEAD")).toMatchObject({ status: 200, body: "" });
});

test.each(["/", "/livez/", "/LIVEZ", "//", "//livez", "/..", "/livez%00", "/__proto__", "*"])(
  "%s is not found",
  async (path) => {
    const server = await start({});
    expect(await get(server, path)).toMatchObject({ status: 404 });
  },
);

test.each(["POST", "PUT", "DELETE", "OPTIONS"])("%s is not allowed", async (method) => {
  const server = await start({});
  expect(await get(server, "/livez", method)).toMatchObject({ status: 405, allow: "GET, HEAD" });
});

test("further pages are served beside the three", async () => {
  const rules = async () => ({ status: 200, contentType: "application/yaml", body: "groups: []\n" });
  const server = await start({ pages: { "/rules": rules } });
  expect(await get(server, "/rules")).toMatchObject({ contentType: "application/yaml", body: "groups: []\n" });
});

test("a port that is taken is told by a rejection", async () => {
  const { port } = await start({});
  await expect(start({ port })).rejects.toMatchObject({ code: "EADDRINUSE" });
});

test("closing ends connections that are kept alive and the scrape that hangs", async () => {
  const server = await start({ metrics: () => new Promise<string>(() => {}), metricsTimeoutMs: 60_000 });
  const scrape = get(server, "/metrics");
  scrape.catch(() => {});
  expect(await get(server, "/livez")).toMatchObject({ status: 200 });
  await server.close();
  await expect(scrape).rejects.toMatchObject({ code: "ECONNRESET" });
});

async function start(options: Partial<Parameters<typeof startOpsServer>[0]>): Promise<OpsServer> {
  const server = await startOpsServer({
    host: "127.0.0.1",
    port: 0,
    readyz: () => READY,
    metrics: async () => "",
    contentType: "text/plain; version=0.0.4; charset=utf-8",
    metricsTimeoutMs: 50,
    ...options,
  });
  servers.push(server);
  return server;
}

/** Plain HTTP, so that paths go out as they are written. */
function get({ port }: OpsServer, path: string, method = "GET") {
  return new Promise<{
    status: number | undefined;
    contentType: string | undefined;
    allow: string | undefined;
    body: string;
  }>((resolve, reject) => {
    const call = request({ host: "127.0.0.1", port, path, method }, (response) => {
      const { "content-type": contentType, allow } = response.headers;
      text(response).then((body) => resolve({ status: response.statusCode, contentType, allow, body }), reject);
    });
    call.on("error", reject);
    call.end();
  });
}
