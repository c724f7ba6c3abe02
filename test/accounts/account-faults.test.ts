import fc from "fast-check";
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type { AccountStore } from "../../src/accounts/account-store.ts";
import { BudgetRefusal } from "../../src/accounts/budget-refusal.ts";
import { createMemoryAccountStore } from "../../src/accounts/memory-account-store.ts";
import { createRedisAccountStore } from "../../src/accounts/redis-account-store.ts";
import { connectRedis } from "../../src/store/redis-connection.ts";
import { ledgerOf } from "../support/ledger.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { repeated } from "../support/repeated.ts";
import { call, checkAccount, settled } from "./calls.ts";

// Whatever is lost on the way, replies, processes, Redis itself: the bill adds up and no cap is crossed.

const tenant = "acme";
const CAP = 500n;

let server: RedisServer;
beforeAll(async () => {
  server = await startRedisServer({ appendOnly: true });
}, 60_000);
afterAll(() => server.stop());

/** One step of somebody's work on one of a few calls. */
type Step =
  | { readonly do: "hold"; readonly call: number; readonly cost: number }
  | { readonly do: "start" | "release"; readonly call: number; readonly owner: string }
  | { readonly do: "settle" | "correct"; readonly call: number; readonly cost: number }
  | { readonly do: "lose"; readonly call: number }
  | { readonly do: "expired" };

const anyCall = fc.integer({ min: 0, max: 7 });
const cost = fc.integer({ min: 0, max: 200 });
const owner = fc.constantFrom("a", "b");
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ do: fc.constant("hold" as const), call: anyCall, cost }),
  fc.record({ do: fc.constantFrom("start" as const, "release" as const), call: anyCall, owner }),
  fc.record({ do: fc.constantFrom("settle" as const, "correct" as const), call: anyCall, cost }),
  fc.record({ do: fc.constant("lose" as const), call: anyCall }),
  fc.record({ do: fc.constant("expired" as const) }),
);

async function take(store: AccountStore, next: Step): Promise<unknown> {
  switch (next.do) {
    case "hold":
      return store.hold(call(`c${next.call}`, { costMicroUsd: BigInt(next.cost), userId: `u${next.call % 3}` }));
    case "start":
      return store.start({ tenant, callId: `c${next.call}` }, next.owner);
    case "release":
      return store.release({ tenant, callId: `c${next.call}` }, next.owner);
    case "settle":
    case "correct":
      return store[next.do](settled(`c${next.call}`, { costMicroUsd: BigInt(next.cost), userId: `u${next.call % 3}` }));
    case "lose":
      return store.lose({ tenant, callId: `c${next.call}` });
    case "expired":
      return store.expired();
  }
}

/** What a step says, without what differs from run to run. */
async function outcomeOf(store: AccountStore, next: Step): Promise<unknown> {
  try {
    return withoutTimes(await take(store, next));
  } catch (error) {
    if (error instanceof BudgetRefusal) return error.hits.map((hit) => withoutTimes(hit));
    throw error;
  }
}

function withoutTimes(value: unknown): unknown {
  return JSON.parse(
    JSON.stringify(value ?? null, (key, part: unknown) => {
      if (/Time|resetTimeMs|retryAfterMs/.test(key)) return undefined;
      return typeof part === "bigint" ? String(part) : part;
    }),
  );
}

async function fresh(): Promise<{ store: AccountStore; close(): Promise<void> }> {
  const connection = connectRedis(server.url);
  await connection.use((client) => client.flushall());
  return { store: createRedisAccountStore({ connection }), close: () => connection.close() };
}

describe("any sequence of steps", () => {
  it("does the same in process and on Redis, and the bill adds up after it", async () => {
    const { store: onRedis, close } = await fresh();
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 40 }), async (steps) => {
        const inProcess = createMemoryAccountStore();
        const flusher = new Redis(server.url);
        await flusher.flushall();
        flusher.disconnect();
        for (const store of [inProcess, onRedis]) {
          const cap = { scope: "tenant:acme", period: "month", limitMicroUsd: CAP, dryRun: false } as const;
          await store.setBudget(tenant, cap);
        }
        for (const next of steps) expect(await outcomeOf(onRedis, next)).toEqual(await outcomeOf(inProcess, next));
        for (const store of [inProcess, onRedis]) {
          // Nothing stays held once all calls have ended.
          for (let index = 0; index < 8; index += 1) {
            for (const name of ["a", "b"]) await store.release({ tenant, callId: `c${index}` }, name);
          }
          await checkAccount(store, tenant, { held: 0n });
        }
      }),
      { numRuns: 150 },
    );
    await close();
  }, 120_000);
});

/** The turn runner's way with one call: it repeats what it has no answer to. Returns what the provider counted. */
async function makeCall(store: AccountStore, callId: string, costMicroUsd: bigint): Promise<bigint | undefined> {
  const outcome = await repeated(() => store.hold(call(callId, { costMicroUsd: 100n }))).catch((error: unknown) => {
    if (error instanceof BudgetRefusal) return undefined;
    throw error;
  });
  if (outcome === undefined) return undefined;
  if ((await repeated(() => store.start({ tenant, callId }, callId))) !== "started") return undefined;
  await repeated(() => store.settle(settled(callId, { costMicroUsd })));
  return costMicroUsd;
}

/** Many calls at once, from several processes' connections, while `harm` is done now and then. */
async function makeCallsUnder(harm: () => Promise<void>): Promise<void> {
  const connections = Array.from({ length: 3 }, () => connectRedis(server.url));
  await connections[0]?.use((client) => client.flushall());
  const stores = connections.map((connection) => createRedisAccountStore({ connection }));
  const [first] = stores;
  if (first === undefined) throw new Error("no store");
  const cap = 2_000n;
  await first.setBudget(tenant, { scope: "user:ann", period: "month", limitMicroUsd: cap, dryRun: false });
  let working = true;
  const harming = (async () => {
    while (working) await harm();
  })();
  const counted = new Map<string, bigint>();
  await Promise.all(
    Array.from({ length: 24 }, async (_, worker) => {
      for (let index = 0; index < 12; index += 1) {
        const callId = `w${worker}-${index}`;
        const store = stores[(worker + index) % stores.length] ?? first;
        const cost = await makeCall(store, callId, BigInt((worker * 7 + index) % 60));
        if (cost !== undefined) counted.set(callId, cost);
      }
    }),
  );
  working = false;
  await harming;
  await vi.waitFor(() => first.budgets(tenant), { timeout: 10_000 });
  const rows = await ledgerOf(first, tenant);
  expect(new Map(rows.map((row) => [row.recordId, row.costMicroUsd]))).toEqual(counted);
  expect(rows).toHaveLength(counted.size);
  expect(counted.size).toBeGreaterThan(19);
  const [budget] = await first.budgets(tenant);
  expect(budget?.spentMicroUsd).toBeLessThanOrEqual(cap);
  await checkAccount(first, tenant, { held: 0n });
  await Promise.all(connections.map((connection) => connection.close()));
}

describe("calls of three processes against one cap", () => {
  it("add up though connections are cut while replies are due", async () => {
    const killer = new Redis(server.url);
    let cuts = 0;
    await makeCallsUnder(async () => {
      await new Promise((resolve) => setTimeout(resolve, 7));
      cuts += Number(await killer.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"));
    });
    killer.disconnect();
    expect(cuts).toBeGreaterThan(0);
  }, 60_000);

  it("add up though Redis is killed and comes back with its append-only file", async () => {
    let kills = 0;
    await makeCallsUnder(async () => {
      await new Promise((resolve) => setTimeout(resolve, 20));
      if (kills >= 3) return;
      kills += 1;
      await server.restart();
    });
    expect(kills).toBeGreaterThan(0);
  }, 60_000);
});
