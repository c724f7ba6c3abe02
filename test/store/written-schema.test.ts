import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { Code, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { Redis } from "ioredis";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { loadConfig } from "../../src/config.ts";
import { sessionKeys, WRITTEN_SCHEMA_KEY } from "../../src/store/redis-keys.ts";
import { SCHEMA_VERSION } from "../../src/store/stored-formats.ts";
import { schemaRefusal } from "../../src/store/written-schema.ts";
import { refusalOf } from "../rpc/refusals.ts";
import { startTestApp } from "../support/parley-app.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";

let redis: RedisServer;
let client: Redis;
beforeAll(async () => {
  redis = await startRedisServer();
  client = new Redis(redis.url);
});
afterAll(async () => {
  client.disconnect();
  await redis.stop();
});
beforeEach(() => client.flushall());

test("a service notes the version that it writes, and never a lower one", async () => {
  const app = await startTestApp({ redisUrl: redis.url });
  await app.close();
  expect(await client.zscore(WRITTEN_SCHEMA_KEY, "newest")).toBe(`${SCHEMA_VERSION}`);
  expect(await client.ttl(WRITTEN_SCHEMA_KEY)).toBe(-1);
  await client.zadd(WRITTEN_SCHEMA_KEY, SCHEMA_VERSION + 1, "newest");
  const again = await startTestApp({ redisUrl: redis.url });
  await again.close();
  expect(await client.zscore(WRITTEN_SCHEMA_KEY, "newest")).toBe(`${SCHEMA_VERSION + 1}`);
});

test.each([
  { own: 3, written: undefined, refused: false },
  { own: 3, written: 2, refused: false },
  { own: 3, written: 3, refused: false },
  { own: 3, written: 4, refused: false },
  { own: 3, written: 1, refused: "Upgrade to the release of version 2 first" },
  { own: 3, written: 5, refused: "go back no further than to the release of version 4" },
])("own version $own over $written: $refused", ({ own, written, refused }) => {
  if (refused === false) expect(schemaRefusal({ own, written })).toBeUndefined();
  else expect(schemaRefusal({ own, written })).toContain(refused);
});

test("a version that this release cannot write is refused at start", () => {
  const env = { STATE_WRITE_SCHEMA: `${SCHEMA_VERSION + 1}` };
  const load = () => loadConfig(env, { readFile: () => "", packageVersion: "0.0.0" });
  expect(load).toThrow(/STATE_WRITE_SCHEMA: must be a whole number from \d+ to \d+/);
});

test("what cannot be read is refused, and counted", async () => {
  const app = await startTestApp({ redisUrl: redis.url });
  try {
    const sessions = createClient(SessionService, createConnectTransport({ baseUrl: app.url, httpVersion: "2" }));
    const { session } = await sessions.createSession({ userId: "u1" });
    const { sessionId = "" } = session ?? {};
    const key = sessionKeys({ tenant: "default", sessionId }).session;
    await client.hset(key, "record", Buffer.from([8, SCHEMA_VERSION + 2]));
    const refusal = await refusalOf(sessions.getSession({ sessionId }));
    expect(refusal.code).toBe(Code.FailedPrecondition);
    expect(await app.metrics()).toMatch(/^parley_unreadable_sessions_total\{.*\} 1$/m);
  } finally {
    await app.close();
  }
});

describe("parley state check", () => {
  const check = (env: Record<string, string>): Promise<{ code: number; stdout: string; stderr: string }> =>
    promisify(execFile)(join(import.meta.dirname, "../../bin/parley"), ["state", "check"], {
      env: { PATH: `${join(process.execPath, "..")}:${process.env.PATH}`, ...env },
    }).then(
      (output) => ({ code: 0, ...output }),
      (error) => error,
    );

  test.each([
    { written: undefined, code: 0, says: "It may run." },
    { written: SCHEMA_VERSION, code: 0, says: "It may run." },
    { written: SCHEMA_VERSION + 1, code: 0, says: "It may run." },
    { written: SCHEMA_VERSION + 2, code: 1, says: "It cannot read them" },
  ])("over version $written: exit code $code", async ({ written, code, says }) => {
    if (written !== undefined) await client.zadd(WRITTEN_SCHEMA_KEY, written, "newest");
    const result = await check({ REDIS_URL: redis.url });
    expect(result.code).toBe(code);
    expect(`${result.stdout}${result.stderr}`).toContain(says);
  });

  test("a Redis that does not answer is no yes", async () => {
    expect(await check({ REDIS_URL: "redis://127.0.0.1:1" })).toMatchObject({ code: 1 });
  });
});
