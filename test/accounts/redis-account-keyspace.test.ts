import type { Redis } from "ioredis";
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { ACCOUNTS_KEY, moneyKeys } from "../../src/accounts/account-keys.ts";
import type { AccountStore } from "../../src/accounts/account-store.ts";
import { createRedisAccountStore } from "../../src/accounts/redis-account-store.ts";
import { connectRedis, type RedisConnection } from "../../src/store/redis-connection.ts";
import { expectFailure } from "../store/store-contract.ts";
import { ledgerOf } from "../support/ledger.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { budgetOf, call, checkAccount, held, refusalOf, settled, startedCall } from "./calls.ts";

const tenant = "acme";
const DAY_MS = 86_400_000;
const keys = moneyKeys(tenant);

let server: RedisServer;
let connection: RedisConnection;
let redis: Redis;
let store: AccountStore;

beforeAll(async () => {
  server = await startRedisServer();
  connection = connectRedis(server.url);
  redis = connection.client as Redis;
}, 60_000);
afterAll(async () => {
  await connection.close();
  await server.stop();
});
beforeEach(async () => {
  await redis.flushall();
  store = createRedisAccountStore({ connection });
});

/** As if a hold had been made that much earlier, but for its period. */
async function age(callId: string, set: "unstarted" | "started"): Promise<void> {
  await redis.hset(`${keys.callPrefix}${callId}`, "until", 1);
  await redis.zadd(keys[set], 1, callId);
}

const setMonth = (limitMicroUsd: bigint) =>
  store.setBudget(tenant, { scope: "user:ann", period: "month", limitMicroUsd, dryRun: false });

describe("an account's keys", () => {
  it("are all in its slot, and all but the budgets expire, after the time that they are needed", async () => {
    await setMonth(1_000n);
    await store.hold(call("c1"));
    await startedCall(store, call("c2"));
    await startedCall(store, call("c3"));
    await store.settle(settled("c3"));
    await startedCall(store, call("c4"));
    await store.lose({ tenant, callId: "c4" });
    await store.settle(settled("c4"));
    await store.hold(call("c5"));
    await store.release({ tenant, callId: "c5" }, "me");
    const all = await redis.keys("*");
    expect(all.filter((key) => !key.startsWith("{a:acme}:"))).toEqual([ACCOUNTS_KEY]);
    const kinds = new Set(all.map((key) => /^\{.*?\}:([a-z]+)/.exec(key)?.[1]));
    expect([...kinds].toSorted()).toEqual(["accounts", "budgets", "call", "ledger", "started", "unstarted", "use"]);
    for (const key of all) {
      const lifeMs = await redis.pttl(key);
      if (key === keys.budgets) expect(lifeMs).toBe(-1);
      else expect(lifeMs, key).toBeGreaterThan(DAY_MS - 5_000);
      expect(lifeMs, key).toBeLessThan(71 * DAY_MS);
    }
    expect(await redis.pttl(keys.ledger)).toBeGreaterThan(61 * DAY_MS);
  });

  it("are found again a minute after a failover forgot that there is the account, though it makes no further call", async () => {
    vi.useFakeTimers({ toFake: ["performance"] });
    try {
      await startedCall(store, call("c1"));
      await redis.del(ACCOUNTS_KEY);
      // Long held, and nobody but the list says where.
      await age("c1", "started");
      expect(await store.expired()).toEqual([]);
      vi.advanceTimersByTime(60_000);
      expect((await store.expired()).map(({ recordId }) => recordId)).toEqual(["c1"]);
      // Once is enough: who makes no call is not registered for ever.
      await redis.del(ACCOUNTS_KEY);
      vi.advanceTimersByTime(60_000);
      await store.expired();
      expect(await store.tenants()).toEqual([]);
    } finally {
      vi.useRealTimers();
    }
  });

  it("have their format's version", async () => {
    await setMonth(1_000n);
    await startedCall(store, call("c1"));
    await store.settle(settled("c1"));
    await store.hold(call("c2"));
    for (const key of await redis.keys("{a:acme}:*")) {
      if ((await redis.type(key)) === "hash" && key !== keys.budgets) expect(await redis.hget(key, "v"), key).toBe("1");
    }
    expect(Object.values(await redis.hgetall(keys.budgets))).toEqual(["1 1000 - 0"]);
    const [[, fields] = []] = await redis.xrange(keys.ledger, "-", "+");
    expect(fields?.slice(0, 2)).toEqual(["v", "1"]);
  });

  it("of the next release are read, with more at their ends", async () => {
    await redis.hset(keys.budgets, "month:user:ann", "2 1000 - 0 more");
    await startedCall(store, call("c1"));
    expect(await store.budgets(tenant)).toHaveLength(1);
    await store.settle(settled("c1"));
    const [[, fields = []] = []] = await redis.xrangeBuffer(keys.ledger, "-", "+");
    const [, , , row = ""] = fields;
    await redis.xadd(keys.ledger, "*", "v", "2", "r", row, "more", "x");
    expect((await ledgerOf(store, tenant)).map(({ recordId }) => recordId)).toEqual(["c1", "c1"]);
  });

  it("of a still newer release are refused, not guessed at", async () => {
    await redis.hset(keys.budgets, "month:user:ann", "3 1000 - 0");
    await expectFailure(store.hold(call("c1")), "STORED_FORMAT_UNKNOWN");
    await expectFailure(store.budgets(tenant), "STORED_FORMAT_UNKNOWN");
    await redis.xadd(keys.ledger, "*", "v", "3", "r", "");
    await expectFailure(ledgerOf(store, tenant), "STORED_FORMAT_UNKNOWN");
  });
});

describe("a hold that nobody starts", () => {
  it("expires, and its amounts are free again", async () => {
    await setMonth(100n);
    await store.hold(call("c1", { costMicroUsd: 90n }));
    await refusalOf(store.hold(call("c2", { costMicroUsd: 90n })));
    await age("c1", "unstarted");
    expect(await store.find({ tenant, callId: "c1" })).toBeUndefined();
    held(await store.hold(call("c2", { costMicroUsd: 90n })));
    expect(await store.start({ tenant, callId: "c1" }, "me")).toBe("not_held");
    expect(await budgetOf(store, tenant)).toMatchObject({ heldMicroUsd: 90n });
  });

  it("can be held anew under its id, and is then counted once", async () => {
    await setMonth(100n);
    await store.hold(call("c1", { costMicroUsd: 90n }));
    await age("c1", "unstarted");
    held(await store.hold(call("c1", { costMicroUsd: 40n })));
    expect(await budgetOf(store, tenant)).toMatchObject({ heldMicroUsd: 40n });
    await age("c1", "unstarted");
    expect(await store.start({ tenant, callId: "c1" }, "me")).toBe("not_held");
    expect(await budgetOf(store, tenant)).toMatchObject({ heldMicroUsd: 0n });
  });

  it("stands in nobody's way, however many there are", async () => {
    await setMonth(1_000n);
    for (let index = 0; index < 300; index += 1) await store.hold(call(`c${index}`, { costMicroUsd: 3n }));
    for (let index = 0; index < 300; index += 1) await age(`c${index}`, "unstarted");
    held(await store.hold(call("big", { costMicroUsd: 1_000n })));
    expect(await redis.zcard(keys.unstarted)).toBe(1);
  });

  it("is settled all the same by an owner who was late, for its call was made", async () => {
    await setMonth(100n);
    await store.hold(call("c1", { costMicroUsd: 90n }));
    await age("c1", "unstarted");
    await store.budgets(tenant);
    expect(await store.settle(settled("c1", { costMicroUsd: 20n }))).toMatchObject({ state: "settled" });
    await checkAccount(store, tenant, { held: 0n });
  });
});

describe("the ledger after a step back of the clock", () => {
  it("never has a row before its hold", async () => {
    await startedCall(store, call("c1"));
    const aheadMs = Date.now() + 3_600_000;
    await redis.hset(`${keys.callPrefix}c1`, "hold", aheadMs);
    await store.settle(settled("c1"));
    await store.settle(settled("c2"));
    const page = await store.ledger({ tenant, startMs: aheadMs, endMs: aheadMs + 1, limit: 10 });
    expect(page.rows.map(({ recordId }) => recordId)).toEqual(["c1"]);
    expect(await ledgerOf(store, tenant)).toHaveLength(2);
  });
});

describe("holding and starting in one tick", () => {
  it("is one round trip", async () => {
    await store.hold(call("warm"));
    await store.start({ tenant, callId: "warm" }, "me");
    const roundTrips = async (): Promise<number> =>
      Number(/total_reads_processed:(\d+)/.exec(await redis.info("stats"))?.[1]);
    const before = await roundTrips();
    const [outcome, started] = await Promise.all([store.hold(call("c1")), store.start({ tenant, callId: "c1" }, "me")]);
    expect([outcome.state, started]).toEqual(["held", "started"]);
    // One for both, and one for the question itself.
    expect((await roundTrips()) - before).toBe(2);
    await setMonth(1n);
    const refused = store.hold(call("c2", { costMicroUsd: 5_000n }));
    const notStarted = store.start({ tenant, callId: "c2" }, "me");
    await refusalOf(refused);
    expect(await notStarted).toBe("not_held");
  });
});
