import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { threeWires } from "../rpc/wires.ts";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { useRedis } from "../support/redis-of-file.ts";

// The REST calls of the FastAPI service around AutoGen, as its clients send them.

const redis = useRedis();

describe.each(["embedded", "redis"] as const)("with the %s store", (kind) => {
  let app: TestApp;
  beforeAll(async () => {
    app = await startTestApp({
      env: { REST_DOOR: "true" },
      ...(kind === "redis" ? { redisUrl: redis.server.url } : {}),
      yaml: JSON.stringify({
        default_team: "plain",
        agents: { plain: {} },
        teams: { plain: { agent: "plain" } },
        budgets: [{ scope: "user", id: "poor", period: "day", limit_tokens: 100 }],
      }),
    });
  });
  afterAll(() => app?.close());

  const post = async (body: unknown, headers: Record<string, string> = {}) => {
    const response = await fetch(`${app.url}/chat`, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: typeof body === "string" ? body : JSON.stringify(body),
    });
    return { status: response.status, headers: response.headers, body: (await response.json()) as never };
  };

  test("POST /chat answers with exactly what its clients read, and a session of an unknown id begins", async () => {
    const sessionId = `old-${crypto.randomUUID()}`;
    const asked = {
      session_id: sessionId,
      message: "my name is Ada",
      user_id: "ann",
      metadata: { channel: ["web", 1] },
    };
    const { status, body } = await post(asked);
    expect(status).toBe(200);
    expect(body).toEqual({
      session_id: sessionId,
      response: expect.stringContaining("my name is Ada"),
      token_usage: { prompt: expect.any(Number), completion: expect.any(Number), total: expect.any(Number) },
      processing_time_ms: expect.any(Number),
    });
    const { prompt, completion, total } = (body as { token_usage: Record<string, number> }).token_usage;
    expect([prompt, completion].every((count) => (count ?? 0) > 0)).toBe(true);
    expect(total).toBe((prompt ?? 0) + (completion ?? 0));

    const again = await post({ session_id: sessionId, message: "who am I?", user_id: "ann" });
    expect((again.body as { response: string }).response).toContain("my name is Ada");
    const { session } = await createClient(SessionService, threeWires[1].transport(app.url)).getSession({ sessionId });
    expect(session).toMatchObject({ userId: "ann", messageCount: 4n, metadata: { channel: ["web", 1] } });
  });

  test("without a session_id a new session begins", async () => {
    const { body } = await post({ message: "hello", user_id: "ann", session_id: null, metadata: null, unknown: true });
    expect(body).toMatchObject({ session_id: expect.stringMatching(/^[\w-]{36}$/) });
  });

  test.each([
    [{ user_id: "ann" }, "message", "missing"],
    [{ message: "", user_id: "ann" }, "message", "value_error"],
    [{ message: "x".repeat(10_001), user_id: "ann" }, "message", "value_error"],
    [{ message: 7, user_id: "ann" }, "message", "value_error"],
    [{ message: "hi" }, "user_id", "value_error"],
    [{ message: "hi", user_id: "" }, "user_id", "value_error"],
    [{ message: "hi", user_id: "ann", session_id: "a b" }, "session_id", "value_error"],
    [{ message: "hi", user_id: "ann", metadata: "x" }, "metadata", "value_error"],
  ])("422 for %j, in FastAPI's form", async (body, field, type) => {
    expect(await post(body)).toMatchObject({
      status: 422,
      body: { detail: [{ type, loc: ["body", field], msg: expect.any(String) }] },
    });
  });

  test.each([
    ["nested deeper than a stack", `{"a":${"[".repeat(100_000)}${"]".repeat(100_000)}}`],
    ["half a character", '{"a":"\\ud800"}'],
    ["a number without end", '{"a":1e999}'],
  ])(
    "422 for metadata with %s: a client's mistake is never a 500, for which a mesh ejects the pod",
    async (_, metadata) => {
      expect(await post(`{"message":"hi","user_id":"ann","metadata":${metadata}}`)).toMatchObject({
        status: 422,
        body: { detail: [{ type: "value_error", loc: ["body", "metadata"] }] },
      });
    },
  );

  test("422 for a session's id that can be none, which stands in the path", async () => {
    const response = await fetch(`${app.url}/session/a%20b`, { method: "DELETE" });
    expect([response.status, await response.json()]).toEqual([
      422,
      { detail: [{ type: "value_error", loc: ["path", "session_id"], msg: expect.any(String) }] },
    ]);
  });

  test("422 for what is no JSON", async () => {
    expect(await post("{")).toMatchObject({ status: 422, body: { detail: [{ type: "json_invalid", loc: ["body"] }] } });
  });

  test("another user's session is not there, and a budget is told in words", async () => {
    const sessionId = `of-ann-${crypto.randomUUID()}`;
    await post({ session_id: sessionId, message: "hi", user_id: "ann" });
    expect(await post({ session_id: sessionId, message: "hi", user_id: "bob" })).toMatchObject({
      status: 404,
      body: { detail: expect.stringContaining("no such session") },
    });
    expect(await post({ message: "hi", user_id: "poor" })).toMatchObject({
      status: 429,
      body: { detail: expect.stringContaining("budget") },
    });
  });

  test("an idempotency key makes a repeated request the same turn", async () => {
    const headers = { "idempotency-key": crypto.randomUUID() };
    const calls = app.simulated.callCount;
    const first = await post({ message: "hi", user_id: "ann" }, headers);
    const again = await post({ message: "hi", user_id: "ann" }, headers);
    expect((again.body as { session_id: string }).session_id).toBe((first.body as { session_id: string }).session_id);
    expect(app.simulated.callCount).toBe(calls + 1);
  });

  test("DELETE /session/{id} deletes it, once", async () => {
    const sessionId = `gone-${crypto.randomUUID()}`;
    await post({ session_id: sessionId, message: "hi", user_id: "ann" });
    const remove = () => fetch(`${app.url}/session/${sessionId}`, { method: "DELETE" });
    const first = await remove();
    expect([first.status, await first.json()]).toEqual([200, { status: "deleted", session_id: sessionId }]);
    const second = await remove();
    expect([second.status, await second.json()]).toEqual([404, { detail: expect.stringContaining("no such session") }]);
  });

  test("GET /health says whether there is a Redis", async () => {
    const response = await fetch(`${app.url}/health`);
    expect([response.status, await response.json()]).toEqual([
      200,
      {
        status: "healthy",
        redis_connected: kind === "redis",
        timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      },
    ]);
  });

  test("GET /metrics is what the ops port answers", async () => {
    const response = await fetch(`${app.url}/metrics`);
    expect(response.headers.get("content-type")).toMatch(/^text\/plain; version=0\.0\.4/);
    expect(await response.text()).toContain('parley_requests_total{rpc="Chat",code="ok"');
  });

  test("another method is 405 and nothing else is taken from the console", async () => {
    const chat = await fetch(`${app.url}/chat`);
    expect([chat.status, chat.headers.get("allow"), await chat.json()]).toEqual([
      405,
      "POST",
      { detail: "Method Not Allowed" },
    ]);
    expect((await fetch(`${app.url}/console-config.json`)).status).toBe(200);
  });

  test("curl moves without a change", async () => {
    const curl = async (...args: string[]) =>
      (await promisify(execFile)("curl", ["-s", "-w", "\n%{http_code}", ...args])).stdout;
    const json = ["-H", "Content-Type: application/json"];
    const chat = await curl(
      "-X",
      "POST",
      ...json,
      "-d",
      '{"session_id":"c1","message":"hi","user_id":"u1"}',
      `${app.url}/chat`,
    );
    expect(chat).toMatch(
      /^\{"session_id":"c1","response":".+","token_usage":\{"prompt":\d+,"completion":\d+,"total":\d+\},"processing_time_ms":\d+\}\n200$/,
    );
    expect(await curl("-X", "DELETE", `${app.url}/session/c1`)).toBe('{"status":"deleted","session_id":"c1"}\n200');
  });
});

test("the rate limit is 429, with when to come back", async () => {
  const app = await startTestApp({ env: { REST_DOOR: "true", RATE_LIMIT: "1" } });
  try {
    const post = () =>
      fetch(`${app.url}/chat`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: '{"message":"hi","user_id":"u1"}',
      });
    expect((await post()).status).toBe(200);
    const second = await post();
    expect([second.status, await second.json()]).toEqual([429, { detail: expect.stringContaining("as many turns") }]);
    expect(Number(second.headers.get("retry-after"))).toBeGreaterThan(0);
  } finally {
    await app.close();
  }
});

test("a Redis that is gone is told as degraded", async () => {
  const app = await startTestApp({ env: { REST_DOOR: "true" }, redisUrl: "redis://127.0.0.1:1" });
  try {
    const response = await fetch(`${app.url}/health`);
    expect([response.status, await response.json()]).toMatchObject([
      200,
      { status: "degraded", redis_connected: false },
    ]);
  } finally {
    await app.close();
  }
});

test("the door is closed unless it is opened, /metrics with it", async () => {
  const app = await startTestApp();
  try {
    for (const [method, path] of [
      ["POST", "/chat"],
      ["DELETE", "/session/s1"],
      ["GET", "/health"],
      ["GET", "/metrics"],
    ] as const) {
      expect((await fetch(`${app.url}${path}`, { method })).status, path).toBe(404);
    }
  } finally {
    await app.close();
  }
});
