import { afterEach, describe, expect, it, vi } from "vitest";
import type { Failure } from "../../src/failure.ts";
import { connectRedis, type RedisConnection } from "../../src/store/redis-connection.ts";
import { sessionKeys } from "../../src/store/redis-keys.ts";
import { createRedisStore } from "../../src/store/redis-store.ts";
import { type RedisServer, startRedisCluster, startRedisServer } from "../support/redis-server.ts";
import { begin, beginAndCommit, commit, entries, expectFailure, newTurn } from "./store-contract.ts";

const ref = { tenant: "acme", sessionId: "s1" };
const SLOW = 60_000;

const cleanups: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function start(options: Parameters<typeof startRedisServer>[0] = {}): Promise<RedisServer> {
  const server = await startRedisServer(options);
  cleanups.push(() => server.stop());
  return server;
}

function connect(url: string, callbacks: Parameters<typeof connectRedis>[1] = {}): RedisConnection {
  const connection = connectRedis(url, callbacks);
  cleanups.push(() => connection.close());
  return connection;
}

function storeOn(connection: RedisConnection) {
  return createRedisStore({ connection, ttlMs: 60_000, leaseMs: 10_000 });
}

describe("a connection to Redis", () => {
  it("refuses a Redis that drops keys when memory is short", async () => {
    const server = await start({ settings: { "maxmemory-policy": "allkeys-lru" } });
    await expect(connect(server.url).ping()).rejects.toThrow(/maxmemory-policy allkeys-lru.*noeviction/);
  });

  it("warns once of a Redis without an append-only file", async () => {
    const server = await start();
    const onWarning = vi.fn();
    const connection = connect(server.url, { onWarning });
    await connection.ping();
    await connection.ping();
    expect(onWarning).toHaveBeenCalledExactlyOnceWith(expect.stringContaining("append-only file"));
  });

  it(
    "does not warn of one that has it, and finds what it stored after a restart",
    async () => {
      const server = await start({ appendOnly: true });
      const onWarning = vi.fn();
      const connection = connect(server.url, { onWarning });
      const store = storeOn(connection);
      await store.ping();
      expect(onWarning).not.toHaveBeenCalled();
      await store.createSession({ ...ref, userId: "ann", version: "1" });
      const lease = await beginAndCommit(store, "s1", ["hello"]);
      await server.kill();
      await server.restart();
      await vi.waitFor(() => store.ping(), { timeout: 10_000 });
      expect(await store.listMessages(ref, { offset: 0, limit: 5 })).toMatchObject([{ content: "hello" }]);
      expect(await store.readLog(lease, 0n, 5)).toHaveLength(2);
    },
    SLOW,
  );

  it("waits for the first connection", async () => {
    const server = await start();
    await expect(storeOn(connect(server.url)).countActiveSessions()).resolves.toBe(0);
  });

  it(
    "says STORE_UNAVAILABLE while Redis is down, at once, and goes on when it is back",
    async () => {
      const server = await start({ appendOnly: true });
      const problems: string[] = [];
      const connection = connect(server.url, { onError: (problem) => problems.push(problem) });
      const store = storeOn(connection);
      await store.createSession({ ...ref, userId: "ann", version: "1" });
      const { lease } = await begin(store, newTurn("s1"));
      await server.kill();
      const failure = await expectFailure(store.append(lease, entries(2n, 3n)), "STORE_UNAVAILABLE");
      expect(failure.facts.retryAfterMs).toBe(1_000);
      expect(failure.cause).toBeInstanceOf(Error);
      await expectFailure(store.ping(), "STORE_UNAVAILABLE");
      await expectFailure(store.getSession(ref), "STORE_UNAVAILABLE");
      await server.restart();
      await vi.waitFor(() => store.append(lease, entries(2n, 3n)), { timeout: 10_000 });
      await store.commitTurn(lease, commit(4n, { texts: ["hello"] }));
      expect(await store.readLog(lease, 1n, 5)).toHaveLength(3);
      expect(problems.length).toBeGreaterThan(0);
    },
    SLOW,
  );

  it("says STORE_UNAVAILABLE where nobody listens", async () => {
    const server = await start();
    await server.kill();
    await expectFailure(storeOn(connect(server.url)).getSession(ref), "STORE_UNAVAILABLE");
  });

  it(
    "gives up a Redis that stands still, and a write repeated later is written once",
    async () => {
      const server = await start();
      const store = storeOn(connect(server.url));
      await store.createSession({ ...ref, userId: "ann", version: "1" });
      const { lease } = await begin(store, newTurn("s1"));
      server.pause(true);
      await expectFailure(store.append(lease, entries(2n, 3n)), "STORE_UNAVAILABLE");
      await expectFailure(store.commitTurn(lease, commit(4n, { texts: ["hello"] })), "STORE_UNAVAILABLE");
      server.pause(false);
      await vi.waitFor(
        () =>
          store.commitTurn(lease, {
            ...commit(2n, { texts: ["hello"] }),
            entries: [...entries(2n, 3n), ...commit(4n).entries],
          }),
        {
          timeout: 10_000,
        },
      );
      expect(await store.readLog(lease, 0n, 9)).toHaveLength(4);
      expect(await store.getSession(ref)).toMatchObject({ messageCount: 1n });
    },
    SLOW,
  );

  it("never lets a command's arguments into an error", async () => {
    const server = await start();
    const connection = connect(server.url);
    const store = storeOn(connection);
    await store.createSession({ ...ref, userId: "ann", version: "1" });
    // A key of the wrong type: every write to it is an error reply.
    await connection.use((client) => client.set(sessionKeys(ref).messages, "x"));
    const { lease } = await begin(store, { ...newTurn("s1"), windowMessages: 0 });
    const failure = await expectFailure(store.commitTurn(lease, commit(2n, { texts: ["a secret text"] })), "INTERNAL");
    expect(JSON.stringify(everythingOf(failure))).not.toContain("secret");
  });

  it("signs in and takes a database", async () => {
    const server = await start();
    const admin = connect(server.url);
    await admin.use((client) => client.config("SET", "requirepass", "pass/wo:rd"));
    const connection = connect(`redis://:pass%2Fwo%3Ard@127.0.0.1:${server.port}/3`);
    await storeOn(connection).createSession({ ...ref, userId: "ann", version: "1" });
    expect(await admin.use((client) => client.info("keyspace"))).toMatch(/^db3:/m);
    const wrong = connect(`redis://:wrong@127.0.0.1:${server.port}`);
    const problem = await expectFailure(storeOn(wrong).getSession(ref), "STORE_UNAVAILABLE");
    expect(JSON.stringify(everythingOf(problem.cause))).not.toContain("wrong");
  });

  it.each([
    ["", /redis:\/\/ or rediss:\/\//],
    ["http://localhost:6379", /redis:\/\/ or rediss:\/\//],
    ["redis://", /redis:\/\/ or rediss:\/\//],
    ["redis://secret-host:port:x", /no host:port/],
    ["redis://a:1,,b:2", /no host:port/],
    ["redis://localhost/secret", /number of a database/],
    ["redis://a:1,b:2/3", /database 0 only/],
  ])("refuses the URL %j without quoting it", (url, sentence) => {
    const connecting = () => connectRedis(url);
    expect(connecting).toThrow(sentence);
    expect(connecting).not.toThrow(/secret/);
  });
});

describe("a connection to a Redis Cluster", () => {
  it(
    "is made from one address with ?cluster=true, checks every master and fails when one is down",
    async () => {
      const cluster = await startRedisCluster();
      cleanups.push(() => cluster.stop());
      const [first, , third] = cluster.masters;
      const store = storeOn(connect(`${first?.url}?cluster=true`));
      await store.ping();
      for (const sessionId of ["a", "b", "c", "d", "e", "f"]) {
        await store.createSession({ ...ref, sessionId, userId: "ann", version: "1" });
      }
      expect(await store.countActiveSessions()).toBe(6);
      await third?.kill();
      await expectFailure(store.ping(), "STORE_UNAVAILABLE");
    },
    SLOW,
  );
});

/** An error with all that a logger could find on it. */
function everythingOf(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const own = Object.fromEntries(Object.getOwnPropertyNames(error).map((name) => [name, Reflect.get(error, name)]));
  return { ...own, cause: everythingOf((error as Failure).cause) };
}
