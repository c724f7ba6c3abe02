import { Code, createClient } from "@connectrpc/connect";
import { expect, test, vi } from "vitest";
import { Health, HealthCheckResponse_ServingStatus as ServingStatus } from "../../gen/grpc/health/v1/health_pb.js";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { drained, expectRefusal, refusalOf } from "../rpc/refusals.ts";
import { threeWires } from "../rpc/wires.ts";
import { eventually } from "../support/eventually.ts";
import type { ServiceProcess } from "../support/service-process.ts";
import { callerOf, USER } from "./clients.ts";
import { startParts } from "./parts.ts";

const SERVICES = ["", ChatService.typeName, SessionService.typeName];

async function healthOf({ url }: ServiceProcess): Promise<ServingStatus[]> {
  const health = createClient(Health, threeWires[1].transport(url));
  return Promise.all(SERVICES.map(async (service) => (await health.check({ service })).status));
}

test("a service whose Redis is down starts, says so everywhere, and is ready by itself once Redis is up", async () => {
  const { redis, startService } = await startParts();
  await redis.kill();
  const service = await startService({}, { awaitReady: false });

  await eventually(async () => {
    const { status, body } = await service.readiness();
    expect(status).toBe(503);
    expect(body.checks.model?.ok).toBe(true);
    expect(body.checks.store).toEqual({ ok: false, reason: "the session store does not answer" });
  });
  expect((await fetch(`${service.opsUrl}/livez`)).status).toBe(200);
  expect(await service.metric("parley_active_sessions")).toBeUndefined();
  expect(await healthOf(service)).toEqual(SERVICES.map(() => ServingStatus.NOT_SERVING));

  for (const wire of threeWires) {
    const { chat, sessions } = callerOf(service, wire);
    const ask = { message: "hello", userId: USER };
    // A deadline of the caller's own would end what hangs with another code.
    const soon = { timeoutMs: 10_000 };
    const refusals = await Promise.all(
      [
        chat.chat(ask, soon),
        drained(chat.streamChat(ask, soon)),
        chat.chat({ ...ask, sessionId: "s1" }, soon),
        sessions.createSession({ userId: USER }, soon),
        sessions.getSession({ sessionId: "s1" }, soon),
        sessions.listSessions({ userId: USER }, soon),
        sessions.listMessages({ sessionId: "s1" }, soon),
        sessions.deleteSession({ sessionId: "s1" }, soon),
      ].map(refusalOf),
    );
    for (const refusal of refusals) expectRefusal(refusal, { code: Code.Unavailable, reason: "STORE_UNAVAILABLE" });
  }

  await redis.restart();
  await vi.waitFor(async () => expect((await service.readiness()).status).toBe(200), { timeout: 20_000 });
  await eventually(async () => expect(await healthOf(service)).toEqual(SERVICES.map(() => ServingStatus.SERVING)));
  const caller = callerOf(service);
  expect(await caller.say("", "hello")).toContain("hello");
  expect(await service.metric("parley_active_sessions")).toBe(1);
});

const EVICTING =
  "Redis has maxmemory-policy allkeys-lru, which drops sessions when memory is short: set it to noeviction.";

test("a Redis that drops keys when memory is short is refused at start with a sentence", async () => {
  const { startService } = await startParts({ settings: { "maxmemory-policy": "allkeys-lru" } });
  await expect(startService({})).rejects.toThrow(`src/main.ts ended before it served: ${EVICTING}\n`);
});

test("a Redis that begins to drop keys is not used until it is told not to", async () => {
  const { redis, startService } = await startParts();
  const service = await startService({});
  await redis.configure("maxmemory-policy", "allkeys-lru");
  await vi.waitFor(
    async () => {
      const { status, body } = await service.readiness();
      expect(status).toBe(503);
      expect(body.checks.store).toEqual({ ok: false, reason: EVICTING });
    },
    { timeout: 20_000 },
  );
  await eventually(async () => expect(await healthOf(service)).toEqual(SERVICES.map(() => ServingStatus.NOT_SERVING)));
  // Who reads the log alone learns it too, once and not with every check.
  await eventually(() =>
    expect(service.logged({ level: "warn", check: "store" })).toMatchObject([{ reason: EVICTING }]),
  );

  await redis.configure("maxmemory-policy", "noeviction");
  await vi.waitFor(async () => expect((await service.readiness()).status).toBe(200), { timeout: 20_000 });
  expect(service.logged({ level: "warn", check: "store" })).toHaveLength(1);
});
