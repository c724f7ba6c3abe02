import { expect, onTestFinished, test } from "vitest";
import { connectRedis } from "../../src/store/redis-connection.ts";
import { createRedisStore } from "../../src/store/redis-store.ts";
import { parseTurnId } from "../../src/turns/turn-id.ts";
import { threeWires } from "../rpc/wires.ts";
import { eventually } from "../support/eventually.ts";
import { type RedisCluster, startRedisCluster } from "../support/redis-server.ts";
import type { ServiceProcess } from "../support/service-process.ts";
import {
  bytesOf,
  callerOf,
  errorOf,
  expectInLog,
  expectNoneRepeated,
  expectWhole,
  persist,
  spoken,
  type TurnResponse,
  turnIdOf,
} from "./clients.ts";
import { PACED_REPLY, type Parts, startParts } from "./parts.ts";

// A Redis Cluster of three masters with a replica each, and REDIS_DURABILITY=replica.

async function startOnCluster(): Promise<Parts & { cluster: RedisCluster; services: ServiceProcess[] }> {
  const cluster = await startRedisCluster({
    appendOnly: true,
    withReplicas: true,
    settings: { "cluster-replica-validity-factor": "0", "cluster-node-timeout": "1000" },
  });
  onTestFinished(() => cluster.stop());
  const parts = await startParts();
  const env = { LEASE_MS: "1500", REDIS_URL: cluster.url, REDIS_DURABILITY: "replica" };
  const services = await Promise.all([parts.startReplica(env), parts.startReplica(env)]);
  return { ...parts, cluster, services };
}

/** A turn's log as the Cluster has it. */
async function logOf(cluster: RedisCluster, turnId: string) {
  const connection = connectRedis(cluster.url);
  const store = createRedisStore({ connection, ttlMs: 3_600_000, leaseMs: 10_000 });
  try {
    const ref = parseTurnId(turnId);
    return (ref && (await store.readLog(ref, 0n, 10_000))) ?? [];
  } finally {
    await store.close();
  }
}

test("a master is killed amid turns: each comes to its one end, and nothing that was delivered is unsaid", async () => {
  const { cluster, services, model, toolCalls } = await startOnCluster();
  const delivered = new Map<string, TurnResponse[]>();
  let finished = 0;
  const turns = Array.from({ length: 18 }, async (_, index) => {
    const agentTeam = index % 3 === 0 ? "pay" : "paced";
    const message = `failover ${index}`;
    const events = await persist(message, {
      agentTeam,
      callerFor: (attempt) => callerOf(services[(index + attempt) % 2] as ServiceProcess, threeWires[index % 3]),
      onTrouble: (_, soFar) => delivered.set(message, [...soFar]),
    });
    finished++;
    return { message, agentTeam, events };
  });
  await eventually(() => expect(model.callCount).toBeGreaterThanOrEqual(18), { timeout: 20_000 });
  // The one that has the account, and a third of the sessions.
  const master = await cluster.masterOf("{a:default}:leases");
  await master.kill();
  expect(finished).toBeLessThan(turns.length);
  const isPromoted = async () => expect((await cluster.masterOf("{a:default}:leases")).port).not.toBe(master.port);
  await eventually(isPromoted, { timeout: 20_000 });
  // Until it is there again, what is written has no replica to go to.
  await master.restart();

  const ended = await Promise.all(turns);
  const tools = await toolCalls();
  for (const { message, agentTeam, events } of ended) {
    const messages = expectWhole(events);
    if (agentTeam === "paced") expect(messages).toEqual([PACED_REPLY]);
    const log = await logOf(cluster, turnIdOf({ events }));
    expectInLog({ events }, log);
    expect(events).toHaveLength(log.length);
    const early = delivered.get(message) ?? [];
    expect(events.slice(0, early.length).map(bytesOf)).toEqual(early.map(bytesOf));
    expectNoneRepeated(model, message, agentTeam === "pay" ? 3 : 1);
    expect(tools.filter((line) => line.includes(turnIdOf({ events }))).length).toBeLessThanOrEqual(1);
  }
});

test("what no replica has is delivered to nobody, on whichever process it is read", async () => {
  const { cluster, services } = await startOnCluster();
  const [a, b] = services.map((service) => callerOf(service)) as [
    ReturnType<typeof callerOf>,
    ReturnType<typeof callerOf>,
  ];
  const running = a.stream("", "tell me all", "endless");
  await spoken(running);
  const turnId = turnIdOf(running);
  const followed = b.resume(turnId);
  await spoken(followed);
  const key = `{s:default/${parseTurnId(turnId)?.sessionId}}:session`;
  const master = await cluster.masterOf(key);
  for (const replica of cluster.replicas) replica.pause(true);
  try {
    // The master takes what is said, and keeps it to itself.
    await eventually(async () => expect((await logOf(cluster, turnId)).length).toBeGreaterThan(running.events.length), {
      timeout: 10_000,
    });
    const late = b.resume(turnId);
    await Promise.all([errorOf(running), errorOf(followed), errorOf(late)]);
    // Who reads elsewhere has no more than the owner's own reader, who waits for a replica.
    for (const { events } of [followed, late]) expect(events.length).toBeLessThanOrEqual(running.events.length);
    await master.kill();
    for (const replica of cluster.replicas) replica.pause(false);
    const isPromoted = async () => expect((await cluster.masterOf(key)).port).not.toBe(master.port);
    await eventually(isPromoted, { timeout: 20_000 });
    await master.restart();
    await eventually(() => b.chat.cancelTurn({ turnId }, { timeoutMs: 5_000 }), { timeout: 20_000 });
    const log = await eventually(
      async () => {
        const entries = await logOf(cluster, turnId);
        expect(entries.at(-1)?.event?.event.case).toBe("turnCompleted");
        return entries;
      },
      { timeout: 20_000 },
    );
    for (const reading of [running, followed]) expectInLog(reading, log);
  } finally {
    for (const replica of cluster.replicas) replica.pause(false);
  }
});
