import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Redis } from "ioredis";
import { type UsageRecord, UsageRecordSchema } from "../gen/parley/usage/v1/usage_record_pb.js";
import { createRedisRollups } from "../sidecar/rollups-redis.ts";
import { periodOf } from "../src/accounts/budget-periods.ts";
import { createRedisAccountStore } from "../src/accounts/redis-account-store.ts";
import { connectRedis } from "../src/store/redis-connection.ts";
import { fillLedger } from "../test/support/ledger.ts";
import { startRedisServer } from "../test/support/redis-server.ts";
import { startSidecarProcess } from "../test/support/sidecar-process.ts";

// How fast one sidecar applies a ledger, and what it takes: `node bench/ledger.ts [rows] [users]`. The ledger is there
// before the sidecar begins, as after an outage of all sidecars; in the end rollups and counters must say what was written. Then how far it is behind while calls are held, started and
// settled as fast as this process can. Redis keeps an append-only file that is written before each answer.

const rows = Number(process.argv[2] ?? 100_000);
const users = Number(process.argv[3] ?? 10_000);
const tenant = "default";
/** Calls are made for so long, in milliseconds. */
const CALLS_MS = 8_000;
/** Calls of each group that were written, and what each costs, in millionths of a dollar. */
const written = new Map<string, bigint>();
const COST_MICRO_USD = 1_500n;

const beginMs = Date.now();
const server = await startRedisServer({ appendOnly: true });
const redis = new Redis(server.url);
try {
  await fillLedger(redis, tenant, pastCalls());
  await redis.config("SET", "slowlog-log-slower-than", "0", "slowlog-max-len", "100000");
  const before = Number(/used_memory:(\d+)/.exec(await redis.info("memory"))?.[1]);
  const sidecar = await startSidecarProcess({ REDIS_URL: server.url });
  const startMs = performance.now();
  let applied = 0;
  let peakBytes = 0;
  let slowestPingMs = 0;
  let counted = 0;
  while (applied < rows) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    const pingMs = performance.now();
    await redis.ping();
    slowestPingMs = Math.max(slowestPingMs, performance.now() - pingMs);
    const text = await (await fetch(`${sidecar.opsUrl}/metrics`)).text();
    const read = (name: string): number => Number(new RegExp(`^${name}\\{.*\\} (\\S+)$`, "m").exec(text)?.[1] ?? 0);
    applied = read("parley_ledger_rows_applied_total");
    counted = [...text.matchAll(/^parley_cost_usd_total\{.*\} (\S+)$/gm)].reduce(
      (sum, [, usd]) => sum + Number(usd),
      0,
    );
    peakBytes = Math.max(peakBytes, read("process_resident_memory_bytes"));
  }
  const seconds = (performance.now() - startMs) / 1_000;
  const after = Number(/used_memory:(\d+)/.exec(await redis.info("memory"))?.[1]);
  const slowlog = (await redis.call("SLOWLOG", "GET", "100000")) as [number, number, number, string[]][];
  const times = slowlog
    .filter(([, , , [name]]) => /^evalsha$/i.test(name ?? ""))
    .map(([, , microseconds]) => microseconds)
    .toSorted((a, b) => a - b);
  const timeAt = (part: number): number => (times[Math.floor(times.length * part)] ?? 0) / 1_000;
  if (Math.round(counted * 1e6) !== rows * Number(COST_MICRO_USD)) throw new Error(`the counters say $ ${counted}`);
  await checkRollups();
  process.stdout.write(
    [
      `rows                        ${rows}, of ${users} users; rollups and counters say the same`,
      `rows per second             ${Math.round(rows / seconds)}`,
      `sidecar's memory at most    ${Math.round(peakBytes / 1e6)} MB`,
      `Redis for rollups, history  ${Math.round((after - before) / 1e6)} MB, beside ${Math.round(before / 1e6)} MB of ledger`,
      `a script, 50, 90, 99 %      ${[0.5, 0.9, 0.99].map((part) => timeAt(part).toFixed(1)).join(", ")} ms`,
      `slowest PING meanwhile      ${slowestPingMs.toFixed(1)} ms`,
      "",
    ].join("\n"),
  );
  await followCalls();
  sidecar.child.kill("SIGTERM");
} finally {
  redis.disconnect();
  await server.stop();
}

/** Throws where a group's rollups are not what was written of it. */
async function checkRollups(): Promise<void> {
  const connection = connectRedis(server.url);
  const accounts = createRedisAccountStore({ connection });
  const rollups = createRedisRollups({ connection, accounts, consumer: "checking" });
  const due = new Map(written);
  for (const startMs of new Set([beginMs, Date.now()].map((timeMs) => periodOf("month", timeMs - 60_000).startMs))) {
    for await (const { group, calls, costMicroUsd } of rollups.read(tenant, "month", startMs)) {
      if (costMicroUsd !== calls * COST_MICRO_USD) throw new Error(`${calls} calls cost ${costMicroUsd}`);
      const key = groupKey(group);
      due.set(key, (due.get(key) ?? 0n) - calls);
    }
  }
  const wrong = [...due].filter(([, calls]) => calls !== 0n);
  if (wrong.length > 0) throw new Error(`${wrong.length} groups are not what was written, as ${wrong[0]?.join(": ")}`);
  await connection.close();
}

function groupKey({ team, userId, model }: { team: string; userId: string; model: string }): string {
  return `${team} ${userId} ${model}`;
}

/** Makes calls for a while, 64 at a time, and says how old the oldest row was that was not applied. */
async function followCalls(): Promise<void> {
  const connection = connectRedis(server.url);
  const accounts = createRedisAccountStore({ connection });
  const rollups = createRedisRollups({ connection, accounts, consumer: "looking on" });
  const endMs = performance.now() + CALLS_MS;
  let calls = 0;
  const lagsMs: number[] = [];
  const make = async (): Promise<void> => {
    while (performance.now() < endMs) {
      calls += 1;
      const callId = `live-${calls}/1/0`;
      const row = create(UsageRecordSchema, {
        recordId: callId,
        tenant,
        userId: `user-${calls % users}`,
        sessionId: `session-${calls % users}`,
        turnId: `live-${calls}`,
        model: "gpt-4o",
        promptTokens: 200n,
        costMicroUsd: 1_500n,
        priceVersion: "v",
      });
      await Promise.all([accounts.hold({ maximum: row, callMs: 60_000 }), accounts.start({ tenant, callId }, "bench")]);
      await accounts.settle(row);
    }
  };
  const look = async (): Promise<void> => {
    while (performance.now() < endMs) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      lagsMs.push((await rollups.standing(tenant)).lagMs);
    }
  };
  await Promise.all([...Array.from({ length: 64 }, make), look()]);
  lagsMs.sort((a, b) => a - b);
  process.stdout.write(
    [
      `calls per second, live      ${Math.round((calls * 1_000) / CALLS_MS)}`,
      `lag, 50, 99, 100 %          ${[0.5, 0.99, 1].map((part) => lagsMs[Math.min(lagsMs.length - 1, Math.floor(lagsMs.length * part))]).join(", ")} ms`,
      "",
    ].join("\n"),
  );
  await connection.close();
}

/** Calls of a minute ago. */
function* pastCalls(): Iterable<UsageRecord> {
  for (let row = 0; row < rows; row += 1) {
    const record = create(UsageRecordSchema, {
      recordId: `turn-${row}/1/0`,
      turnId: `turn-${row}`,
      tenant,
      team: `team-${row % 5}`,
      userId: `user-${row % users}`,
      useCase: "help",
      sessionId: `session-${row % (2 * users)}`,
      agent: "assistant",
      model: row % 3 ? "gpt-4o" : "gpt-4",
      version: "0.4.0",
      promptTokens: 200n,
      completionTokens: 100n,
      costMicroUsd: COST_MICRO_USD,
      priceVersion: "v",
      holdTime: timestampFromMs(Date.now() - 60_000),
    });
    const key = groupKey(record);
    written.set(key, (written.get(key) ?? 0n) + 1n);
    yield record;
  }
}
