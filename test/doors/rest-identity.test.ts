import { afterAll, beforeAll, expect, test } from "vitest";
import { makeApiKey } from "../../src/identity/api-keys.ts";
import { createRedisApiKeyStore } from "../../src/identity/redis-api-key-store.ts";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { useRedis } from "../support/redis-of-file.ts";

// The REST calls with keys: whose they are decides what there is.

const redis = useRedis();
let app: TestApp;
const keys: Record<string, string> = {};
beforeAll(async () => {
  app = await startTestApp({ redisUrl: redis.server.url, env: { AUTH_MODE: "api_key", REST_DOOR: "true" } });
  const store = createRedisApiKeyStore(redis.connection);
  const claims = { tenant: "acme", team: "red", note: "", useCases: [] };
  for (const [name, userId, roles] of [
    ["ann", "ann", ["chat"]],
    ["bob", "bob", ["chat"]],
    ["reader", "ann", ["usage:read"]],
  ] as const) {
    keys[name] = (await makeApiKey(store, { ...claims, userId, roles: [...roles] })).key;
  }
});
afterAll(() => app?.close());

async function ask(method: string, path: string, { as, body }: { as?: string | undefined; body?: object } = {}) {
  const response = await fetch(app.url + path, {
    method,
    headers: {
      ...(as === undefined ? {} : { authorization: `Bearer ${keys[as] ?? as}` }),
      ...(body === undefined ? {} : { "content-type": "application/json" }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

test.each([
  [undefined, {}, 401],
  ["parley_made-up", {}, 401],
  ["reader", {}, 403],
  ["ann", { user_id: "bob" }, 403],
])("as %s, with %j more, a chat is refused with %d and a sentence", async (as, more, status) => {
  const refused = await ask("POST", "/chat", { as, body: { message: "hi", ...more } });
  expect(refused).toEqual({ status, body: { detail: expect.stringMatching(/^[A-Z].+\.$/) } });
});

test("a key's user may be left out, and a session is deleted by nobody else", async () => {
  const { status, body } = await ask("POST", "/chat", { as: "ann", body: { message: "hi" } });
  expect([status, body.response]).toEqual([200, expect.stringContaining("“hi”")]);
  const path = `/session/${body.session_id}`;
  expect((await ask("DELETE", path)).status).toBe(401);
  expect((await ask("DELETE", path, { as: "bob" })).status).toBe(404);
  expect((await ask("DELETE", path, { as: "ann" })).status).toBe(200);
  expect((await ask("DELETE", path, { as: "ann" })).status).toBe(404);
});

test("health is told to everyone", async () => {
  expect(await ask("GET", "/health")).toMatchObject({
    status: 200,
    body: { status: "healthy", redis_connected: true },
  });
});
