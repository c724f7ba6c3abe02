import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import {
  createMemoryRateLimiter,
  createRedisRateLimiter,
  type RateLimit,
  type RateLimiter,
} from "../../src/accounts/rate-limit.ts";
import { connectRedis, type RedisConnection } from "../../src/store/redis-connection.ts";
import { type RedisCluster, type RedisServer, startRedisCluster, startRedisServer } from "../support/redis-server.ts";
import { expectFailure } from "./store-contract.ts";

let server: RedisServer;
let cluster: RedisCluster;
let single: RedisConnection;
let clustered: RedisConnection;

beforeAll(async () => {
  [server, cluster] = await Promise.all([startRedisServer(), startRedisCluster()]);
  single = connectRedis(server.url);
  clustered = connectRedis(cluster.url);
}, 60_000);
afterAll(async () => {
  await Promise.all([single.close(), clustered.close()]);
  await Promise.all([server.stop(), cluster.stop()]);
});

const adapters: readonly (readonly [string, (rate: RateLimit) => RateLimiter])[] = [
  ["in process", createMemoryRateLimiter],
  ["on one Redis", (rate) => createRedisRateLimiter({ connection: single, ...rate })],
  ["on a Redis Cluster", (rate) => createRedisRateLimiter({ connection: clustered, ...rate })],
];

describe.each(adapters)("the rate limit %s", (_, createLimiter) => {
  it("refuses a user's turns beyond the limit, and nobody else's", async () => {
    const limiter = createLimiter({ limit: 3, windowSeconds: 3_600 });
    for (let turn = 0; turn < 3; turn += 1) await limiter.consume("acme", "ann");
    const refusal = await expectFailure(limiter.consume("acme", "ann"), "RATE_LIMITED");
    expect(refusal.facts.retryAfterMs).toBeGreaterThan(3_590_000);
    expect(refusal.facts.retryAfterMs).toBeLessThanOrEqual(3_600_000);
    expect(refusal.facts.quotas).toEqual([{ subject: "user:ann", description: "3 turns per 3600 seconds" }]);
    await limiter.consume("acme", "bob");
    await limiter.consume("other", "ann");
  });

  it("tells the refusal that would come, and counts nothing", async () => {
    const limiter = createLimiter({ limit: 2, windowSeconds: 3_600 });
    for (let look = 0; look < 3; look += 1) expect(await limiter.peek("acme", "looker")).toBeUndefined();
    await limiter.consume("acme", "looker");
    expect(await limiter.peek("acme", "looker")).toBeUndefined();
    await limiter.consume("acme", "looker");
    const told = await limiter.peek("acme", "looker");
    const refusal = await expectFailure(limiter.consume("acme", "looker"), "RATE_LIMITED");
    expect(told).toMatchObject({ reason: "RATE_LIMITED", facts: { quotas: refusal.facts.quotas } });
    expect(told?.facts.retryAfterMs).toBeGreaterThan(3_590_000);
    expect(told?.facts.retryAfterMs).toBeLessThanOrEqual(3_600_000);
  });

  it("lets the user go on in the next window", async () => {
    const limiter = createLimiter({ limit: 1, windowSeconds: 1 });
    await limiter.consume("acme", "eve");
    const refusal = await expectFailure(limiter.consume("acme", "eve"), "RATE_LIMITED");
    expect(refusal.facts.retryAfterMs).toBeLessThanOrEqual(1_000);
    await vi.waitFor(() => limiter.consume("acme", "eve"), { timeout: 5_000 });
  });

  it("admits exactly as many as may of those that come at once", async () => {
    const limiter = createLimiter({ limit: 20, windowSeconds: 3_600 });
    const outcomes = await Promise.allSettled(Array.from({ length: 50 }, () => limiter.consume("acme", "crowd")));
    expect(outcomes.filter((outcome) => outcome.status === "fulfilled")).toHaveLength(20);
  });
});

describe("the rate limit on Redis", () => {
  it("is shared by processes, in a key of the account that expires", async () => {
    const rate = { limit: 2, windowSeconds: 60 };
    const other = connectRedis(server.url);
    await createRedisRateLimiter({ connection: single, ...rate }).consume("acme", "shared");
    await createRedisRateLimiter({ connection: other, ...rate }).consume("acme", "shared");
    await expectFailure(
      createRedisRateLimiter({ connection: other, ...rate }).consume("acme", "shared"),
      "RATE_LIMITED",
    );
    const ttlMs = await (other.client as Redis).pttl("{a:acme}:rate:shared");
    expect(ttlMs).toBeGreaterThan(50_000);
    expect(ttlMs).toBeLessThanOrEqual(60_000);
    await other.close();
  });

  it("admits nobody that it cannot count", async () => {
    const gone = await startRedisServer();
    const connection = connectRedis(gone.url);
    const limiter = createRedisRateLimiter({ connection, limit: 1, windowSeconds: 60 });
    await limiter.consume("acme", "ann");
    await gone.stop();
    await expectFailure(limiter.consume("acme", "ann"), "STORE_UNAVAILABLE");
    await connection.close();
  });
});
