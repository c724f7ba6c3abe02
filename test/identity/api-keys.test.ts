import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import type { Redis } from "ioredis";
import { beforeEach, describe, expect, it, test } from "vitest";
import { API_KEY_CACHE_MS, createApiKeyAuthenticator } from "../../src/identity/api-key-authenticator.ts";
import { type ApiKeyStore, hashApiKey, makeApiKey, revokeApiKey } from "../../src/identity/api-keys.ts";
import type { Authenticator } from "../../src/identity/authenticator.ts";
import { createMemoryApiKeyStore } from "../../src/identity/memory-api-key-store.ts";
import { API_KEYS_KEY, createRedisApiKeyStore } from "../../src/identity/redis-api-key-store.ts";
import { connectRedis } from "../../src/store/redis-connection.ts";
import { expectFailure } from "../store/store-contract.ts";
import { useRedis } from "../support/redis-of-file.ts";
import { startRedisServer } from "../support/redis-server.ts";

const ann = { tenant: "acme", team: "red", userId: "ann", useCases: ["help"], roles: ["chat"], note: "for Ann" };
const bearer = (key: string): Headers => new Headers({ authorization: `Bearer ${key}` });

const shared = useRedis();

describe.each([
  ["in process", () => createMemoryApiKeyStore()],
  ["in Redis", () => createRedisApiKeyStore(shared.connection)],
])("API keys %s", (_, open) => {
  let keys: ApiKeyStore;
  let clockMs: number;
  let authenticate: Authenticator;
  beforeEach(async () => {
    await shared.connection.use((client) => client.flushall());
    keys = open();
    clockMs = 0;
    authenticate = createApiKeyAuthenticator({ keys, now: () => clockMs });
  });

  it("prove who their holder is", async () => {
    const { key } = await makeApiKey(keys, ann);
    expect(key).toMatch(/^parley_[A-Za-z0-9_-]{43}$/);
    expect(await authenticate(bearer(key))).toEqual({
      tenant: "acme",
      team: "red",
      userId: "ann",
      useCases: ["help"],
      roles: new Set(["chat"]),
    });
    expect((await authenticate(new Headers({ authorization: `bearer  ${key} ` }))).userId).toBe("ann");
  });

  it("are listed by an id that is not the key, with whose they are", async () => {
    const { key, id } = await makeApiKey(keys, ann);
    await makeApiKey(keys, { ...ann, userId: "bob" });
    const listed = await keys.list();
    expect(listed.map(({ record }) => record.userId).toSorted()).toEqual(["ann", "bob"]);
    expect(JSON.stringify(listed, (_key, value: unknown) => (typeof value === "bigint" ? "" : value))).not.toContain(
      key,
    );
    expect(await hashApiKey(key)).toContain(id);
  });

  it("that were revoked are refused after a few seconds at most, and at once by a process that has not used them", async () => {
    const { key, id } = await makeApiKey(keys, ann);
    await authenticate(bearer(key));
    expect(await revokeApiKey(keys, id)).toBe(true);
    expect(await revokeApiKey(keys, id)).toBe(false);
    await expectFailure(createApiKeyAuthenticator({ keys })(bearer(key)), "CREDENTIALS_INVALID");
    clockMs = API_KEY_CACHE_MS - 1;
    await authenticate(bearer(key));
    clockMs = API_KEY_CACHE_MS;
    await expectFailure(authenticate(bearer(key)), "CREDENTIALS_INVALID");
  });

  it("that nobody made are refused, and are good as soon as they are made", async () => {
    const { key } = await makeApiKey(keys, ann);
    const [{ keyHash, record }] = (await keys.list()) as [Awaited<ReturnType<ApiKeyStore["list"]>>[0]];
    await keys.remove(keyHash);
    await expectFailure(authenticate(bearer(key)), "CREDENTIALS_INVALID");
    await keys.add(keyHash, record);
    expect((await authenticate(bearer(key))).userId).toBe("ann");
  });

  it("are looked up once while they are fresh", async () => {
    const { key } = await makeApiKey(keys, ann);
    let lookUps = 0;
    const counted = createApiKeyAuthenticator({
      keys: {
        find: (hash) => {
          lookUps += 1;
          return keys.find(hash);
        },
      },
      now: () => clockMs,
    });
    await Promise.all(Array.from({ length: 50 }, () => counted(bearer(key))));
    expect(lookUps).toBe(1);
  });

  it.each([
    [{}],
    [{ authorization: "" }],
    [{ authorization: "Basic YTpi" }],
    [{ authorization: "Bearer" }],
    [{ authorization: "Bearer a b" }],
  ])("are missing in %j", async (headers) => {
    await expectFailure(authenticate(new Headers(headers)), "CREDENTIALS_MISSING");
  });
});

describe("API keys in Redis", () => {
  it("are stored as hashes only, and never expire", async () => {
    const redis = shared.connection.client as Redis;
    await redis.flushall();
    const { key } = await makeApiKey(createRedisApiKeyStore(shared.connection), ann);
    expect(await redis.keys("*")).toEqual([API_KEYS_KEY]);
    expect(await redis.pttl(API_KEYS_KEY)).toBe(-1);
    const [[hash, record] = ["", ""]] = Object.entries(await redis.hgetall(API_KEYS_KEY));
    expect(hash).toBe(await hashApiKey(key));
    expect(record).not.toContain(key.slice("parley_".length));
  });

  it("cannot be told while Redis does not answer, but those that were just used can", async () => {
    const own = await startRedisServer();
    const gone = connectRedis(own.url);
    const keys = createRedisApiKeyStore(gone);
    const authenticate = createApiKeyAuthenticator({ keys, now: () => 0 });
    const { key } = await makeApiKey(keys, ann);
    await authenticate(bearer(key));
    await own.stop();
    expect((await authenticate(bearer(key))).userId).toBe("ann");
    await expectFailure(authenticate(bearer("other")), "STORE_UNAVAILABLE");
    await gone.close();
  });
});

/** Runs `npm run keys` with arguments. */
async function cli(
  args: readonly string[],
  url = shared.server.url,
): Promise<{ code: number; out: string; err: string }> {
  const child = spawn(process.execPath, [join(import.meta.dirname, "../../src/keys-cli.ts"), ...args], {
    env: { ...process.env, REDIS_URL: url },
  });
  let out = "";
  let err = "";
  child.stdout.on("data", (chunk: Buffer) => {
    out += String(chunk);
  });
  child.stderr.on("data", (chunk: Buffer) => {
    err += String(chunk);
  });
  const [code] = (await once(child, "close")) as [number];
  return { code, out, err };
}

test("keys are made, listed and revoked from the command line, and shown once", async () => {
  await shared.connection.use((client) => client.flushall());
  const made = await cli([
    "make",
    "--tenant",
    "acme",
    "--user",
    "ann",
    "--roles",
    "chat,usage:read",
    "--note",
    "laptop",
  ]);
  expect(made).toMatchObject({ code: 0 });
  const key = made.out.trim();
  const keys = createRedisApiKeyStore(shared.connection);
  const authenticate = createApiKeyAuthenticator({ keys });
  expect(await authenticate(bearer(key))).toMatchObject({ tenant: "acme", userId: "ann" });
  const listed = await cli(["list"]);
  const [id = ""] = listed.out.split("\n")[1]?.split("\t") ?? [];
  expect(listed.out).toMatch(/acme\t-\tann\tchat,usage:read\t-\tlaptop/);
  expect(listed.out).not.toContain(key);
  expect(made.err).toContain(id);
  expect(await cli(["revoke", id])).toMatchObject({ code: 0, out: `Revoked ${id}.\n` });
  expect(await cli(["revoke", id])).toMatchObject({ code: 1 });
  await expectFailure(createApiKeyAuthenticator({ keys })(bearer(key)), "CREDENTIALS_INVALID");
});

test.each([
  [[], "Usage:"],
  [["made"], "Usage:"],
  [["revoke"], "Usage:"],
  [["make", "--roles", "root"], "There is no role root"],
  [["make"], "chat:on_behalf"],
  [["make", "--user", "ann", "--tenant", "a/b"], "tenant must have"],
  [["make", "--colour", "red"], "colour"],
])("`keys %s` says what is wrong", async (args, sentence) => {
  const { code, out, err } = await cli(args);
  expect(code).toBe(2);
  expect(out).toBe("");
  expect(err).toContain(sentence);
});
