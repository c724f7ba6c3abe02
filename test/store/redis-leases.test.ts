import type { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { connectRedis, type RedisConnection } from "../../src/store/redis-connection.ts";
import { accountKeys, sessionKeys } from "../../src/store/redis-keys.ts";
import { createRedisStore } from "../../src/store/redis-store.ts";
import type { Store } from "../../src/turns/ports.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { begin, commit, entries, expectFailure, newTurn } from "./store-contract.ts";
import { beginNew, SESSION, untilClaimed, WAIT } from "./turns-contract.ts";

// The list of leases, by which turns are found whose owners are lost.

const { leases } = accountKeys(SESSION.tenant);
const times = { ttlMs: 60_000, leaseMs: 200 };

let server: RedisServer;
let connection: RedisConnection;
let redis: Redis;
let store: Store;

beforeAll(async () => {
  server = await startRedisServer();
});
afterAll(() => server.stop());
beforeEach(async () => {
  connection = connectRedis(server.url);
  redis = connection.client as Redis;
  store = createRedisStore({ connection, ...times });
  await redis.flushall();
});
afterEach(() => store.close());

/** Looks until nothing is on the list that is due. */
async function lookUntilEmpty(): Promise<void> {
  await vi.waitFor(async () => {
    expect(await store.claimTurns(32)).toEqual([]);
    expect(await redis.zcard(leases)).toBe(0);
  }, WAIT);
}

describe("the list of leases", () => {
  it("has a turn before the turn has its lease, and not after its commit", async () => {
    const lease = await beginNew(store);
    expect(Number(await redis.zscore(leases, lease.turnId))).toBeLessThanOrEqual(
      Number(await redis.hget(sessionKeys(SESSION).session, "until")),
    );
    await store.commitTurn(lease, commit(2n));
    await vi.waitFor(async () => expect(await redis.zcard(leases)).toBe(0), WAIT);
  });

  it("forgets turns that never began: refused, given up or gone with their session", async () => {
    const lease = await beginNew(store);
    for (let count = 0; count < 40; count++) {
      await expectFailure(store.beginTurn({ ...newTurn("s1"), onBusy: "reject" }), "SESSION_BUSY");
    }
    const waiting = Array.from({ length: 16 }, () => newTurn("s1"));
    for (const turn of waiting) await store.beginTurn(turn);
    for (let count = 0; count < 40; count++) await expectFailure(store.beginTurn(newTurn("s1")), "SESSION_QUEUE_FULL");
    for (const turn of waiting) await store.leaveQueue(turn);
    expect(await redis.zcard(leases)).toBe(97);
    await store.deleteSession(lease);
    await lookUntilEmpty();
  });

  it("is gone through to the turns behind a thousand that never began", async () => {
    await beginNew(store);
    const [clock = 0] = (await redis.time()).map(Number);
    const dead = Array.from({ length: 1_000 }, () => newTurn("never").turnId);
    await redis.zadd(leases, ...dead.flatMap((turnId) => [clock * 1_000 - 60_000, turnId]));
    const startedMs = Date.now();
    await vi.waitFor(() => expect(Date.now() - startedMs).toBeGreaterThan(2 * times.leaseMs), WAIT);
    expect(await store.claimTurns(32)).toHaveLength(1);
  });

  it("that was lost gets a turn back when its session is used, and when it is given up", async () => {
    const lease = await beginNew(store);
    await redis.del(leases);
    const startedMs = Date.now();
    await vi.waitFor(async () => {
      expect(await store.claimTurns(10)).toEqual([]);
      expect(Date.now() - startedMs).toBeGreaterThan(2 * times.leaseMs);
    }, WAIT);
    expect(await store.beginTurn(newTurn("s1"))).toEqual({ state: "queued", position: 1 });
    const claimed = await untilClaimed(store);
    expect(claimed.lease.turnId).toBe(lease.turnId);
    await redis.del(leases);
    await store.releaseLease(claimed.lease);
    expect(await redis.pttl(leases)).toBeGreaterThan(0);
    expect((await untilClaimed(store)).lease.turnId).toBe(lease.turnId);
  });

  it("that was lost gets a turn back also from a caller that does not want to wait", async () => {
    const lease = await beginNew(store);
    await redis.del(leases);
    const claimed = await vi.waitFor(async () => {
      await expectFailure(store.beginTurn({ ...newTurn("s1"), onBusy: "reject" }), "SESSION_BUSY");
      return (await store.claimTurns(10)).find(({ lease: taken }) => taken.turnId === lease.turnId) ?? expect.fail();
    }, WAIT);
    await store.commitTurn(claimed.lease, commit(2n));
  });

  it("keeps a turn that is told of anew while a look finds that it does not run", async () => {
    const running = await beginNew(store);
    const waiting = newTurn("s1");
    await store.beginTurn(waiting);
    await vi.waitFor(async () => {
      const due = await redis.zcount(leases, "-inf", Date.now());
      expect(due).toBeGreaterThan(1);
    }, WAIT);
    await store.commitTurn(running, commit(2n));
    // The look has found nothing that runs, when the turn begins; then it says so.
    let begun = false;
    const looking = createRedisStore({
      connection: {
        ...connection,
        async run(script, keys, args) {
          if (script === "parleySetLeases" && !begun) {
            begun = true;
            await begin(store, waiting);
          }
          return await connection.run(script, keys, args);
        },
      },
      ...times,
    });
    expect(await looking.claimTurns(10)).toEqual([]);
    expect(begun).toBe(true);
    expect((await untilClaimed(store)).lease.turnId).toBe(waiting.turnId);
  });

  it("does not let a turn that cannot be read keep others from being found", async () => {
    const broken = await beginNew(store);
    await redis.hset(`${sessionKeys(SESSION).turnPrefix}${broken.turnId}`, "record", "no record");
    const { lease } = await begin(store, { ...newTurn("s2"), createSession: true });
    expect((await untilClaimed(store)).lease.turnId).toBe(lease.turnId);
  });

  it("finds a turn that release 0.1.0 left, which kept no such list", async () => {
    const lease = await beginNew(store);
    await store.append(lease, entries(2n, 3n));
    const keys = sessionKeys(SESSION);
    await redis.hdel(`${keys.turnPrefix}${lease.turnId}`, "window", "steps", "takeovers");
    await redis.hset(keys.session, "nonce", "of-0.1.0");
    await redis.del(leases);
    const next = newTurn("s1");
    const claimed = await vi.waitFor(async () => {
      expect((await store.beginTurn(next)).state).toBe("queued");
      return (await store.claimTurns(10))[0] ?? expect.fail("nothing is abandoned yet");
    }, WAIT);
    expect(claimed).toMatchObject({ steps: [], window: [], lastSequence: 3n, takeovers: 1 });
    await store.commitTurn(claimed.lease, { ...commit(4n), finishReason: FinishReason.ERROR });
    await begin(store, next);
  });
});
