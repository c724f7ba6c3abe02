import { Code, createClient } from "@connectrpc/connect";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { QuotaFailureSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { eventually } from "../support/eventually.ts";
import { startTestApp, type TestAppOptions } from "../support/parley-app.ts";
import { drained, expectRefusal, refusalOf } from "./refusals.ts";
import { wires } from "./wires.ts";

// Refusals that pass by themselves: they say when.

async function start(options: TestAppOptions) {
  const app = await startTestApp(options);
  onTestFinished(() => app.close());
  return app;
}

describe.each(wires)("on $name", (wire) => {
  test("a user beyond the rate is told the limit and when to come back; others are not held up", async () => {
    const app = await start({ env: { RATE_LIMIT: "2", RATE_WINDOW: "600" } });
    const chat = createClient(ChatService, wire.transport(app.url));
    const request = { message: "hello", userId: "u1" };
    await chat.chat(request);
    await drained(chat.streamChat(request));
    for (const call of [() => chat.chat(request), () => drained(chat.streamChat(request))]) {
      const refusal = await refusalOf(call());
      expectRefusal(refusal, { code: Code.ResourceExhausted, reason: "RATE_LIMITED" });
      const [retry] = refusal.findDetails(RetryInfoSchema);
      expect(Number(retry?.retryDelay?.seconds)).toBeGreaterThan(0);
      expect(Number(retry?.retryDelay?.seconds)).toBeLessThanOrEqual(600);
      const [quota] = refusal.findDetails(QuotaFailureSchema);
      expect(quota?.violations).toMatchObject([{ description: expect.stringContaining("2") }]);
    }
    await chat.chat({ ...request, userId: "u2" });
    expect(app.simulated.callCount).toBe(3);
  });
});

test("what is refused for its fields costs nothing of the rate", async () => {
  const app = await start({ env: { RATE_LIMIT: "1" } });
  const chat = createClient(ChatService, (wires[0] ?? expect.unreachable()).transport(app.url));
  const request = { message: "hello", userId: "u1" };
  expect((await refusalOf(chat.chat({ ...request, message: "" }))).code).toBe(Code.InvalidArgument);
  expect((await refusalOf(chat.chat({ ...request, agentTeam: "nobody" }))).code).toBe(Code.NotFound);
  await chat.chat(request);
  expectRefusal(await refusalOf(chat.chat(request)), { code: Code.ResourceExhausted, reason: "RATE_LIMITED" });
});

test("a replay costs nothing of the rate, and a refusal leaves the key free", async () => {
  const app = await start({ env: { RATE_LIMIT: "1" } });
  const chat = createClient(ChatService, (wires[0] ?? expect.unreachable()).transport(app.url));
  const request = { message: "hello", userId: "u1", idempotencyKey: "k1" };
  expect((await refusalOf(chat.chat({ ...request, sessionId: "nobody-s" }))).code).toBe(Code.NotFound);
  const limited = { code: Code.ResourceExhausted, reason: "RATE_LIMITED" } as const;
  expectRefusal(await refusalOf(chat.chat(request)), limited);
  const other = { ...request, userId: "u2" };
  const first = await chat.chat(other);
  const { processingTimeMs: _, ...replayed } = await chat.chat(other);
  expect(first).toMatchObject(replayed);
  expectRefusal(await refusalOf(chat.chat({ ...other, message: "another" })), {
    code: Code.AlreadyExists,
    reason: "IDEMPOTENCY_KEY_REUSED",
  });
  expectRefusal(await refusalOf(chat.chat({ ...other, idempotencyKey: "k2" })), limited);
  expect(app.simulated.callCount).toBe(1);
});

test("the 17th turn that would wait for a session is refused, and the 16 before it wait on", async () => {
  const app = await start({ model: "sim-stall", env: { DRAIN_MS: "0" } });
  const wire = wires[1] ?? wires[0];
  const transport = wire?.transport(app.url);
  if (transport === undefined) return expect.unreachable();
  const chat = createClient(ChatService, transport);
  const { session } = await createClient(SessionService, transport).createSession({ userId: "u1" });
  const request = { sessionId: session?.sessionId ?? "", message: "hello", userId: "u1" };
  const stop = new AbortController();
  const waiting = async () => Number(/^parley_turns_queued\{.*\} (\d+)$/m.exec(await app.metrics())?.[1] ?? Number.NaN);
  const calls = [chat.chat(request, { signal: stop.signal })];
  await eventually(() => expect(app.simulated.callCount).toBe(1));
  for (let turn = 1; turn <= 16; turn++) calls.push(chat.chat(request, { signal: stop.signal }));
  const ends = Promise.allSettled(calls);
  await vi.waitFor(async () => expect(await waiting()).toBe(16), 10_000);
  const refusal = await refusalOf(chat.chat(request));
  expectRefusal(refusal, { code: Code.ResourceExhausted, reason: "SESSION_QUEUE_FULL" });
  expect(await waiting()).toBe(16);
  stop.abort();
  expect((await ends).map(({ status }) => status)).toEqual(calls.map(() => "rejected"));
  await vi.waitFor(async () => expect(await waiting()).toBe(0), 10_000);
});
