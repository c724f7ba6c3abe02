import type { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { Failure } from "../../src/failure.ts";
import { connectRedis, type RedisConnection } from "../../src/store/redis-connection.ts";
import { createRedisStore } from "../../src/store/redis-store.ts";
import type { Store } from "../../src/turns/ports.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { commit, entries } from "./store-contract.ts";
import { beginNew, LONG, QUICK, untilClaimed, WAIT } from "./turns-contract.ts";

// What processes hear of each other, and what becomes of it when connections or answers are lost.

let server: RedisServer;
let connection: RedisConnection;
let redis: Redis;
let [store, other]: Store[] = [];

beforeAll(async () => {
  server = await startRedisServer();
});
afterAll(() => server.stop());
beforeEach(async () => {
  connection = connectRedis(server.url);
  redis = connection.client as Redis;
  await redis.flushall();
  store = createRedisStore({ connection, ...LONG });
  other = createRedisStore({ connection: connectRedis(server.url), ...LONG });
});
afterEach(async () => {
  await Promise.all([store?.close(), other?.close()]);
});

const both = (): { store: Store; other: Store } => ({
  store: store ?? expect.unreachable(),
  other: other ?? expect.unreachable(),
});
const subscribers = async () => ((await redis.call("PUBSUB", "SHARDCHANNELS")) as string[]).length;

describe("a follower whose connection is lost", () => {
  it("is told that it missed some once it hears again, and hears what comes then", async () => {
    const { store: writing, other: reading } = both();
    const lease = await beginNew(writing);
    const heard: (bigint | undefined)[] = [];
    const unfollow = reading.follow(
      lease,
      (news) => heard.push(...(news.length === 0 ? [undefined] : news.map(({ event }) => event?.sequence))),
      { everywhere: true },
    );
    await vi.waitFor(() => expect(heard).toContain(undefined), WAIT);
    await writing.append(lease, entries(2n, 3n));
    await vi.waitFor(() => expect(heard).toContain(3n), WAIT);
    const before = heard.length;
    await redis.call("CLIENT", "KILL", "TYPE", "pubsub");
    await writing.append(lease, entries(4n, 5n));
    await vi.waitFor(() => expect(heard.slice(before)).toContain(undefined), WAIT);
    // From then on nothing is missed, whatever the pace.
    await writing.append(lease, entries(6n, 6n));
    await writing.commitTurn(lease, commit(7n));
    await vi.waitFor(() => expect(heard.at(-1)).toBe(7n), WAIT);
    expect(heard.slice(before).filter((one) => one !== undefined && one > 5n)).toEqual([6n, 7n]);
    unfollow();
    await vi.waitFor(async () => expect(await subscribers()).toBe(0), WAIT);
  });

  it("is an owner's ear too: it hears of stops again", async () => {
    const { store: owning, other: asking } = both();
    const heard = vi.fn();
    owning.onStop(heard);
    const lease = await beginNew(owning);
    await vi.waitFor(async () => expect(await subscribers()).toBe(1), WAIT);
    await redis.call("CLIENT", "KILL", "TYPE", "pubsub");
    await vi.waitFor(async () => {
      await asking.stopTurn(lease, FinishReason.CANCELLED);
      expect(heard).toHaveBeenCalledWith(lease.turnId);
    }, WAIT);
  });
});

describe("a claim whose answer was lost", () => {
  it("is repeated by the same process at the next look, and counts once", async () => {
    const owner = createRedisStore({ connection: connectRedis(server.url), ...QUICK });
    let lost = 2;
    const claimer = createRedisStore({
      connection: {
        ...connectRedis(server.url),
        async run(script, keys, args) {
          const answer = await connection.run(script, keys, args);
          if (script !== "parleyClaimTurn" || !Array.isArray(answer) || answer.length < 2 || lost-- <= 0) return answer;
          throw new Failure("STORE_UNAVAILABLE");
        },
      },
      ...LONG,
    });
    const lease = await beginNew(owner);
    // Long before the claimer's own lease has run out.
    const claimed = await untilClaimed(claimer);
    expect(claimed).toMatchObject({ lease: { turnId: lease.turnId }, takeovers: 1 });
    expect(lost).toBeLessThan(0);
    await claimer.append(claimed.lease, entries(2n, 2n));
    expect(await claimer.claimTurns(10)).toEqual([]);
    await Promise.all([owner.close(), claimer.close()]);
  });
});
