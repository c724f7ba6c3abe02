import { create, fromBinary } from "@bufbuild/protobuf";
import type { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { MessageRecordSchema } from "../../gen/parley/storage/v1/message_record_pb.js";
import { SessionRecordSchema } from "../../gen/parley/storage/v1/session_record_pb.js";
import { createRedisRateLimiter } from "../../src/accounts/rate-limit.ts";
import { connectRedis, type RedisConnection } from "../../src/store/redis-connection.ts";
import { accountKeys, sessionKeys, TENANTS_KEY } from "../../src/store/redis-keys.ts";
import { createRedisStore } from "../../src/store/redis-store.ts";
import { encodeRecord } from "../../src/store/stored-formats.ts";
import type { Store } from "../../src/turns/ports.ts";
import { eventually } from "../support/eventually.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { begin, beginAndCommit, commit, entries, expectFailure, message, newTurn } from "./store-contract.ts";

const tenant = "acme";
const ttlMs = 60_000;
const ref = { tenant, sessionId: "s1" };

let server: RedisServer;
let connection: RedisConnection;
let redis: Redis;
let store: Store;

beforeAll(async () => {
  server = await startRedisServer();
}, 60_000);
afterAll(() => server.stop());
beforeEach(async () => {
  connection = connectRedis(server.url);
  redis = connection.client as Redis;
  store = createRedisStore({ connection, ttlMs, leaseMs: 10_000 });
  await redis.flushall();
});
afterEach(() => store.close());

describe("the keys that requests make", () => {
  beforeEach(async () => {
    await createRedisRateLimiter({ connection, limit: 10, windowSeconds: 60 }).consume(tenant, "ann");
    await store.createSession({ ...ref, userId: "ann", version: "1" });
    await beginAndCommit(store, "s1", ["hello", "hi"]);
    const { lease } = await begin(store, newTurn("s1"));
    await store.append(lease, entries(2n, 3n));
    await store.renewLease(lease);
    await store.beginTurn(newTurn("s1"));
    await store.updateSession(ref, { a: 1 });
    await begin(store, { ...newTurn("s2"), createSession: true, earlier: [message("before")] });
    await store.listSessions({ tenant, userId: "ann", limit: 10, after: { createTimeMs: 1, sessionId: "none" } });
  });

  it("all expire, those of a session not before it", async () => {
    const keys = await redis.keys("*");
    // Session, messages, turns, two turns with logs, queue and tickets; session, messages, turns, turn with log; account with its leases, and tenants.
    expect(keys.length).toBe(9 + 5 + 5);
    const lives = await Promise.all(keys.map(async (key) => [key, await redis.pttl(key)] as const));
    for (const [key, lifeMs] of lives) {
      expect(lifeMs, key).toBeGreaterThan(0);
      expect(lifeMs, key).toBeLessThanOrEqual(2 * ttlMs + 1_000);
    }
    const sessionLifeMs = await redis.pexpiretime(sessionKeys(ref).session);
    for (const key of keys.filter(
      (name) => name.startsWith("{s:acme/s1}") || name.startsWith(`${accountKeys(tenant).active}`),
    )) {
      expect(await redis.pexpiretime(key), key).toBeGreaterThanOrEqual(sessionLifeMs);
    }
  });

  it("all name their tenant, but for the list of tenants", async () => {
    const keys = await redis.keys("*");
    const others = keys.filter((key) => !/^\{(s:acme\/s[12]|a:acme)\}:/.test(key));
    expect(others).toEqual([TENANTS_KEY]);
  });

  it("are gone with their session", async () => {
    await store.deleteSession(ref);
    await store.deleteSession({ tenant, sessionId: "s2" });
    const rest = await redis.keys("*");
    const { ratePrefix, leases } = accountKeys(tenant);
    // Of leases, whoever looks for abandoned turns finds that they are over.
    expect(rest.toSorted()).toEqual([leases, `${ratePrefix}ann`, TENANTS_KEY].toSorted());
  });
});

describe("the index of active sessions", () => {
  it("has each session before it is made, and until its end at least", async () => {
    await store.createSession({ ...ref, userId: "ann", version: "1" });
    const indexed = async () => Number(await redis.zscore(accountKeys(tenant).active, "s1/ann"));
    const ends = async () => redis.pexpiretime(sessionKeys(ref).session);
    expect(await indexed()).toBe(await ends());
    await begin(store, newTurn("s1"));
    expect(await indexed()).toBe(await ends());
    await store.updateSession(ref, {});
    expect(await indexed()).toBe(await ends());
  });

  it("that was lost comes back with the next use", async () => {
    await store.createSession({ ...ref, userId: "ann", version: "1" });
    const before = await store.getSession(ref);
    for (const key of await redis.keys("{a:*")) await redis.del(key);
    expect(await store.countActiveSessions()).toBe(0);
    const { lease } = await begin(store, newTurn("s1"));
    expect(await store.countActiveSessions()).toBe(1);
    expect(await store.listSessions({ tenant, userId: "ann", limit: 10 })).toMatchObject([
      { createTime: before?.createTime },
    ]);
    for (const key of await redis.keys("{a:*")) await redis.del(key);
    await store.commitTurn(lease, commit(2n));
    await expectFailure(store.createSession({ ...ref, userId: "ann", version: "1" }), "SESSION_EXISTS");
    expect(await store.countActiveSessions()).toBe(1);
  });

  it("does not keep what has expired", async () => {
    const quick = createRedisStore({ connection: connectRedis(server.url), ttlMs: 1_000, leaseMs: 1_000 });
    for (let index = 0; index < 100; index += 1) {
      await quick.createSession({ tenant, sessionId: `s${index}`, userId: "ann", version: "1" });
    }
    const { active, userSessionsPrefix } = accountKeys(tenant);
    await vi.waitFor(async () => expect(await quick.countActiveSessions()).toBe(0), { timeout: 10_000 });
    await quick.createSession({ tenant, sessionId: "last", userId: "ann", version: "1" });
    const [known, ofUser] = [await redis.zcard(active), await redis.zcard(`${userSessionsPrefix}ann`)];
    expect(known).toBeLessThan(100);
    expect(ofUser).toBeLessThanOrEqual(known);
    expect(await quick.countActiveSessions()).toBeLessThanOrEqual(known);
    await quick.close();
  });
});

describe("two processes on one Redis", () => {
  it("share sessions and fence each other", async () => {
    const other = createRedisStore({ connection: connectRedis(server.url), ttlMs, leaseMs: 10_000 });
    await store.createSession({ ...ref, userId: "ann", version: "1" });
    const { lease } = await begin(store, newTurn("s1"));
    expect((await other.beginTurn(newTurn("s1"))).state).toBe("queued");
    await other.append(lease, entries(2n, 2n));
    await other.deleteSession(ref);
    await expectFailure(store.append(lease, entries(3n, 3n)), "SESSION_DELETED");
    await other.close();
  });
});

describe("stored formats", () => {
  it("of the next release are read, and what it added stays in the record", async () => {
    await store.createSession({ ...ref, userId: "ann", version: "1" });
    const { session: key } = sessionKeys(ref);
    const added = Buffer.from([0xa2, 0x06, 3, ...Buffer.from("new")]); // field 100, a text
    const record = create(SessionRecordSchema, { schemaVersion: 2, userId: "ann", version: "2" });
    await redis.hset(key, "record", Buffer.concat([encodeRecord(SessionRecordSchema, record), added]));
    expect(await store.getSession(ref)).toMatchObject({ userId: "ann", version: "2" });
    expect(await store.updateSession(ref, { colour: "red" })).toMatchObject({ metadata: { colour: "red" } });
    const kept = fromBinary(SessionRecordSchema, (await redis.hgetBuffer(key, "record")) ?? Buffer.alloc(0));
    expect(kept).toMatchObject({ schemaVersion: 2, metadata: { colour: "red" } });
    expect(kept.$unknown?.map(({ no }) => no)).toEqual([100]);
  });

  it("of releases after that are refused, not guessed at", async () => {
    await store.createSession({ ...ref, userId: "ann", version: "1" });
    const newer = encodeRecord(MessageRecordSchema, create(MessageRecordSchema, { schemaVersion: 3 }));
    await redis.rpush(sessionKeys(ref).messages, newer);
    await expectFailure(store.listMessages(ref, { offset: 0, limit: 1 }), "STORED_FORMAT_UNKNOWN");
    await redis.hset(sessionKeys(ref).session, "record", Buffer.from("not a record at all"));
    await expectFailure(store.getSession(ref), "STORED_FORMAT_UNKNOWN");
  });
});

describe("what a turn costs", () => {
  it("is the same in a session of 50 messages and in one of 5,000: bytes to and fro, commands that Redis runs", async () => {
    const text = "x".repeat(200);
    const costPerTurn = async (sessionId: string, messages: number) => {
      await store.createSession({ tenant, sessionId, userId: "ann", version: "1" });
      for (let made = 0; made < messages; made += 50) await beginAndCommit(store, sessionId, Array(50).fill(text));
      // What has ended leaves the list of leases a moment later.
      await eventually(async () => expect(await redis.zcard(accountKeys(tenant).leases)).toBe(0));
      const turns = 20;
      const before = { bytes: await netBytes(), commands: await commandsRun() };
      for (let index = 0; index < turns; index += 1) {
        const { lease, window } = await begin(store, newTurn(sessionId));
        expect(window).toHaveLength(10);
        for (let first = 2n; first < 12n; first += 2n) await store.append(lease, entries(first, first + 1n));
        await store.renewLease(lease);
        await store.commitTurn(lease, commit(12n, { texts: [text, text] }));
      }
      return {
        bytes: ((await netBytes()) - before.bytes) / turns,
        commands: ((await commandsRun()) - before.commands) / turns,
      };
    };
    // The first use of a script on a connection sends its text.
    await costPerTurn("first", 50);
    const young = await costPerTurn("young", 50);
    const old = await costPerTurn("older", 5_000);
    expect(young.bytes).toBeGreaterThan(1_000);
    // Only numbers grow, by a digit or two.
    expect(Math.abs(old.bytes - young.bytes)).toBeLessThan(0.01 * young.bytes);
    expect(old.bytes).toBeLessThan(12_000);
    expect(young.commands).toBeGreaterThan(20);
    expect(Math.abs(old.commands - young.commands)).toBeLessThan(2);
  }, 60_000);
});

/** Commands that Redis has run, those within scripts too. */
async function commandsRun(): Promise<number> {
  const calls = (await redis.info("commandstats")).matchAll(/^cmdstat_[^:]+:calls=(\d+)/gm);
  return [...calls].reduce((sum, [, count]) => sum + Number(count), 0);
}

async function netBytes(): Promise<number> {
  const info = await redis.info("stats");
  const [, received = "0"] = /^total_net_input_bytes:(\d+)/m.exec(info) ?? [];
  const [, sent = "0"] = /^total_net_output_bytes:(\d+)/m.exec(info) ?? [];
  return Number(received) + Number(sent);
}
