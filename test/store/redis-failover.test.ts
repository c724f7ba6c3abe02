import type { Cluster } from "ioredis";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { Failure } from "../../src/failure.ts";
import { connectRedis } from "../../src/store/redis-connection.ts";
import { sessionKeys } from "../../src/store/redis-keys.ts";
import { createRedisStore } from "../../src/store/redis-store.ts";
import type { Store } from "../../src/turns/ports.ts";
import { type RedisCluster, type RedisServer, startRedisCluster, startRedisServer } from "../support/redis-server.ts";
import { listen } from "./follow-contract.ts";
import { begin, commit, entries, expectFailure, newTurn } from "./store-contract.ts";
import { line, QUICK, SESSION } from "./turns-contract.ts";

// REDIS_DURABILITY=replica: what was acknowledged is there after a master is lost.

/** A replica that takes its master's place needs some seconds. */
const FAILOVER = { timeout: 40_000, interval: 50 } as const;
const cleanups: (() => Promise<void>)[] = [];

let cluster: RedisCluster;
beforeAll(async () => {
  cluster = await startRedisCluster({ withReplicas: true });
});
afterAll(() => cluster.stop());
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

function openStore(leaseMs: number): { store: Store; client: Cluster } {
  const connection = connectRedis(cluster.url, { durability: "replica" });
  const store = createRedisStore({ connection, ttlMs: 600_000, leaseMs });
  cleanups.push(() => store.close());
  return { store, client: connection.client as Cluster };
}

/** The master of a session's slot. */
async function masterOf(client: Cluster, sessionId: string): Promise<RedisServer> {
  const slot = await client.cluster("KEYSLOT", sessionKeys({ ...SESSION, sessionId }).session);
  const slots = (await client.cluster("SLOTS")) as unknown as [number, number, [string, number]][];
  const [, , [, port]] =
    slots.find(([from, to]) => from <= slot && slot <= to) ?? expect.fail("no master has the slot");
  return [...cluster.masters, ...cluster.replicas].find((node) => node.port === port) ?? expect.fail("no such node");
}

/** Kills the master of a session's slot, waits for its replica to take its place, and starts it again, as that one's replica. */
async function failOver(client: Cluster, sessionId: string): Promise<void> {
  const master = await masterOf(client, sessionId);
  await master.kill();
  await vi.waitFor(async () => expect((await masterOf(client, sessionId)).port).not.toBe(master.port), FAILOVER);
  await master.restart();
}

/** Repeats a write as an owner does while the store does not answer. */
function persistently<T>(write: () => Promise<T>): Promise<T> {
  return vi
    .waitFor(async () => {
      try {
        return { value: await write() };
      } catch (error) {
        if (error instanceof Failure && error.reason === "STORE_UNAVAILABLE") throw error;
        return { error };
      }
    }, FAILOVER)
    .then((outcome) => ("error" in outcome ? Promise.reject(outcome.error) : outcome.value));
}

test("a turn goes on where a master is killed amid it: nothing acknowledged is lost, nothing is there twice", async () => {
  const { store, client } = openStore(60_000);
  const { store: other } = openStore(60_000);
  const { lease } = await begin(store, { ...newTurn("s1"), createSession: true });
  const { heard, stop } = listen(other, lease);
  cleanups.push(async () => stop());
  await vi.waitFor(() => expect(heard).toContain(undefined), FAILOVER);

  let last = 1n;
  const write = async (): Promise<void> => {
    await persistently(() => store.append(lease, entries(last + 1n, last + 3n), [line(Number(last), 1, last + 3n)]));
    last += 3n;
  };
  for (let count = 0; count < 20; count++) await write();
  const failedOver = failOver(client, "s1");
  for (let count = 0; count < 20; count++) await write();
  await failedOver;
  expect((await persistently(() => other.readLog(lease, 0n, 1_000)))?.map(({ event }) => event?.sequence)).toEqual(
    Array.from({ length: Number(last) }, (_, index) => BigInt(index + 1)),
  );
  // The follower was told that it missed some, and hears what comes.
  const before = heard.length;
  await vi.waitFor(async () => {
    await write();
    expect(heard.slice(before)).toContain(last);
  }, FAILOVER);
  await persistently(() => store.stopTurn(lease, FinishReason.CANCELLED));
  expect(await persistently(() => store.append(lease, entries(last + 1n, last + 1n)))).toBe(FinishReason.CANCELLED);
  await persistently(() => store.commitTurn(lease, commit(last + 1n, { texts: ["kept"] })));
  expect(await persistently(() => store.getSession(lease))).toMatchObject({ messageCount: 1n });
});

test("a turn whose owner is lost with its master is found on the new one", async () => {
  const { store, client } = openStore(QUICK.leaseMs);
  const { lease } = await persistently(() => begin(store, { ...newTurn("s2"), createSession: true }));
  await persistently(() => store.append(lease, entries(2n, 4n), [line(1, 1, 4n)]));
  const failedOver = failOver(client, "s2");
  const claimed = await vi.waitFor(async () => {
    const claims = await store.claimTurns(10);
    return claims.find((claim) => claim.lease.turnId === lease.turnId) ?? expect.fail("it is not found yet");
  }, FAILOVER);
  expect(claimed).toMatchObject({ lastSequence: 4n, steps: [{ line: 1 }] });
  await expectFailure(
    persistently(() => store.append(lease, entries(5n, 5n))),
    "LEASE_LOST",
  );
  await persistently(() => store.commitTurn(claimed.lease, commit(5n)));
  await failedOver;
});

test("a write that no replica has is not acknowledged, and is there once when it is repeated", async () => {
  const master = await startRedisServer();
  const replica = await startRedisServer({ replicaOf: master.port });
  cleanups.push(
    () => master.stop(),
    () => replica.stop(),
  );
  const store = createRedisStore({ connection: connectRedis(master.url, { durability: "replica" }), ...QUICK });
  cleanups.push(() => store.close());
  const { lease } = await begin(store, { ...newTurn("s1"), createSession: true });
  const heard = vi.fn();
  store.follow(lease, heard);
  replica.pause(true);
  await expectFailure(store.append(lease, entries(2n, 3n), [line(1, 1, 3n)]), "STORE_UNAVAILABLE");
  expect(heard).not.toHaveBeenCalled();
  replica.pause(false);
  await persistently(() => store.append(lease, entries(2n, 3n), [line(1, 1, 3n)]));
  expect(heard).toHaveBeenCalledOnce();
  expect(await store.readLog(lease, 1n, 9)).toEqual(entries(2n, 3n));
});
