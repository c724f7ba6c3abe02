import { createServer } from "node:net";
import { Code, createClient, type Transport } from "@connectrpc/connect";
import { afterEach, describe, expect, onTestFinished, test, vi } from "vitest";
import {
  Health,
  type HealthCheckResponse,
  HealthCheckResponse_ServingStatus as Status,
} from "../../gen/grpc/health/v1/health_pb.js";
import { startSimulatedModel } from "../../src/providers/simulated-model.ts";
import { eventually } from "../support/eventually.ts";
import { startTestApp, type TestApp, type TestAppOptions } from "../support/parley-app.ts";
import { startRedisServer } from "../support/redis-server.ts";
import { expectRefusal, refusalOf } from "./refusals.ts";
import { type Wire, wires } from "./wires.ts";

const CHAT = "parley.chat.v1.ChatService";
const SESSIONS = "parley.chat.v1.SessionService";

/** Readiness is checked every 2 s; a slow machine may take longer. */
const PATIENCE = { timeout: 20_000, interval: 50 };

const apps: TestApp[] = [];
afterEach(async () => {
  for (const app of apps.splice(0)) await app.close();
});

async function start(options: TestAppOptions = {}): Promise<TestApp> {
  const app = await startTestApp(options);
  apps.push(app);
  return app;
}

const grpc = wires.find(({ protocol }) => protocol === "grpc") as Wire;

function healthOf(transport: Transport) {
  const client = createClient(Health, transport);
  return {
    ...client,
    /** Chat, sessions and the process. */
    async all() {
      const { statuses } = await client.list({});
      return [CHAT, SESSIONS, ""].map((service) => statuses[service]?.status);
    },
  };
}

/** Collects what a Watch says. */
function watched(responses: AsyncIterable<HealthCheckResponse>): { statuses: Status[]; end: Promise<unknown> } {
  const statuses: Status[] = [];
  const end = (async () => {
    for await (const { status } of responses) statuses.push(status);
  })().catch((error: unknown) => error);
  return { statuses, end };
}

describe("on all wires", () => {
  test("a service that is ready serves; one that is not there is NOT_FOUND to Check and SERVICE_UNKNOWN to Watch", async () => {
    const app = await start();
    for (const wire of wires) {
      const health = healthOf(wire.transport(app.url));
      for (const service of ["", CHAT, SESSIONS]) {
        expect((await health.check({ service })).status).toBe(Status.SERVING);
      }
      expect(await health.all()).toEqual([Status.SERVING, Status.SERVING, Status.SERVING]);
      const unknown = await refusalOf(health.check({ service: "nobody" }));
      expectRefusal(unknown, { code: Code.NotFound, reason: "UNKNOWN_SERVICE" });
      const stop = new AbortController();
      const first: Status[] = [];
      for await (const { status } of health.watch({ service: "nobody" }, { signal: stop.signal })) {
        first.push(status);
        break;
      }
      stop.abort();
      expect(first).toEqual([Status.SERVICE_UNKNOWN]);
    }
  });
});

test("without a model sessions serve and chat does not; once a model answered, chat serves even when it is gone", async () => {
  const port = await freePort();
  const app = await start({ env: { OPENAI_BASE_URL: `http://127.0.0.1:${port}/v1` } });
  const health = healthOf(grpc.transport(app.url));
  expect(await health.all()).toEqual([Status.NOT_SERVING, Status.SERVING, Status.NOT_SERVING]);
  const readyz = await fetch(`${app.opsUrl}/readyz`);
  expect([readyz.status, await readyz.text()]).toEqual([
    503,
    expect.stringContaining("no model endpoint has answered"),
  ]);

  const model = await startSimulatedModel({ port });
  onTestFinished(() => model.close());
  await vi.waitFor(
    async () => expect(await health.all()).toEqual([Status.SERVING, Status.SERVING, Status.SERVING]),
    PATIENCE,
  );
  await model.close();
  const modelGone = async () =>
    expect(await (await fetch(`${app.opsUrl}/readyz`)).text()).toContain('"model":{"ok":false');
  await vi.waitFor(modelGone, PATIENCE);
  expect(await health.all()).toEqual([Status.SERVING, Status.SERVING, Status.SERVING]);
});

test("a store that goes and comes back is told to Check and to those who watch, even where no model ever answered", async () => {
  const redis = await startRedisServer();
  onTestFinished(() => redis.stop());
  const port = await freePort();
  const app = await start({ redisUrl: redis.url, env: { OPENAI_BASE_URL: `http://127.0.0.1:${port}/v1` } });
  const health = healthOf(grpc.transport(app.url));
  expect(await health.all()).toEqual([Status.NOT_SERVING, Status.SERVING, Status.NOT_SERVING]);
  const stop = new AbortController();
  const { statuses, end } = watched(health.watch({ service: SESSIONS }, { signal: stop.signal }));
  await vi.waitFor(() => expect(statuses).toEqual([Status.SERVING]), PATIENCE);
  await redis.kill();
  await vi.waitFor(() => expect(statuses).toEqual([Status.SERVING, Status.NOT_SERVING]), PATIENCE);
  expect(await health.all()).toEqual([Status.NOT_SERVING, Status.NOT_SERVING, Status.NOT_SERVING]);
  await redis.restart();
  await vi.waitFor(() => expect(statuses).toEqual([Status.SERVING, Status.NOT_SERVING, Status.SERVING]), PATIENCE);
  stop.abort();
  await end;
});

test("a service that goes away tells those who watch, ends their streams and does not wait for them", async () => {
  const app = await start();
  const { statuses, end } = watched(healthOf(grpc.transport(app.url)).watch({ service: "" }));
  await eventually(() => expect(statuses).toEqual([Status.SERVING]));
  await app.close();
  expect(statuses).toEqual([Status.SERVING, Status.NOT_SERVING]);
  expectRefusal((await refusalOf(end.then((error) => Promise.reject(error)))) as never, {
    code: Code.Unavailable,
    reason: "DRAINING",
  });
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address !== null ? address.port : 0;
}
