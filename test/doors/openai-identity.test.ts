import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { makeApiKey } from "../../src/identity/api-keys.ts";
import { createRedisApiKeyStore } from "../../src/identity/redis-api-key-store.ts";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { useRedis } from "../support/redis-of-file.ts";
import { officialClients } from "./openai-clients.ts";

// API keys of that API are ours, and its `user` is a user.

const redis = useRedis();
let app: TestApp;
const keys: Record<string, string> = {};
beforeAll(async () => {
  app = await startTestApp({ redisUrl: redis.server.url, env: { AUTH_MODE: "api_key" } });
  const store = createRedisApiKeyStore(redis.connection);
  const claims = { tenant: "acme", team: "red", note: "", useCases: [] };
  for (const [name, userId, roles] of [
    ["ann", "ann", ["chat"]],
    ["gateway", "", ["chat", "chat:on_behalf"]],
    ["reader", "ann", ["usage:read"]],
  ] as const) {
    keys[name] = (await makeApiKey(store, { ...claims, userId, roles: [...roles] })).key;
  }
});
afterAll(() => app?.close());

describe.each(officialClients)("%s", (_, call) => {
  const ask = (key: string | undefined, more: object = {}, headers: Record<string, string> = {}) =>
    call({
      url: app.url,
      apiKey: key ?? "made-up",
      headers,
      request: { model: "assistant", messages: [{ role: "user", content: "hello" }], ...more },
    });

  test("a key that is not known is no key, for models too", async () => {
    const refused = { name: "AuthenticationError", status: 401, code: "invalid_api_key" };
    expect((await ask(undefined)).error).toMatchObject(refused);
    expect((await ask(undefined, { stream: true })).error).toMatchObject(refused);
    expect((await call({ url: app.url, apiKey: "made-up", request: null })).error).toMatchObject(refused);
    expect((await call({ url: app.url, apiKey: keys.ann ?? "", request: null })).models).toEqual(["assistant"]);
  });

  test("a key is its user's, and may chat as no other", async () => {
    expect((await ask(keys.ann)).error).toBeNull();
    expect((await ask(keys.ann, { user: "bob" })).error).toMatchObject({
      name: "PermissionDeniedError",
      status: 403,
      code: "user_not_allowed",
    });
    expect((await ask(keys.reader)).error).toMatchObject({ status: 403, code: "role_missing" });
  });

  test("a gateway's key names its users, and sessions are theirs", async () => {
    expect((await ask(keys.gateway)).error).toMatchObject({ status: 400, param: "user", code: "invalid_value" });
    const headers = { "x-parley-session-id": `s-${crypto.randomUUID()}` };
    expect((await ask(keys.gateway, { user: "bob" }, headers)).error).toBeNull();
    expect((await ask(keys.ann, {}, headers)).error).toMatchObject({ status: 404, code: "session_not_found" });
  });
});
