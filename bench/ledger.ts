import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Redis } from "ioredis";
import { UsageRecordSchema } from "../gen/parley/usage/v1/usage_record_pb.js";
import { createRedisRollups } from "../sidecar/rollups-redis.ts";
import { ACCOUNTS_KEY, moneyKeys } from "../src/accounts/account-keys.ts";
import { createRedisAccountStore } from "../src/accounts/redis-account-store.ts";
import { connectRedis } from "../src/store/redis-connection.ts";
import { startRedisServer } from "../test/support/redis-server.ts";
import { startSidecarProcess } from "../test/support/sidecar-process.ts";

// How fast one sidecar applies a ledger, and what it takes: `node bench/ledger.ts [rows] [users]`. The ledger is there
// before the sidecar begins, as after an outage of all sidecars. Then how far it is behind while calls are held, started and
// settled as fast as this process can. Redis keeps an append-only file that is written before each answer.

const rows = Number(process.argv[2] ?? 100_000);
const users = Number(process.argv[3] ?? 10_000);
const tenant = "default";
/** Rows of one write. */
const PAGE = 2_000;
/** Calls are made for so long, in milliseconds. */
const CALLS_MS = 8_000;

const server = await startRedisServer({ appendOnly: true });
const redis = new Redis(server.url);
try {
  await redis.zadd(ACCOUNTS_KEY, Date.now() + 86_400_000, tenant);
  await fill();
  await redis.config("SET", "slowlog-log-slower-than", "0", "slowlog-max-len", "100000");
  const before = Number(/used_memory:(\d+)/.exec(await redis.info("memory"))?.[1]);
  const sidecar = await startSidecarProcess({ REDIS_URL: server.url });
  const startMs = performance.now();
  let applied = 0;
  let peakBytes = 0;
  let slowestPingMs = 0;
  while (applied < rows) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    const pingMs = performance.now();
    await redis.ping();
    slowestPingMs = Math.max(slowestPingMs, performance.now() - pingMs);
    const text = await (await fetch(`${sidecar.opsUrl}/metrics`)).text();
    const read = (name: string): number => Number(new RegExp(`^${name}\\{.*\\} (\\S+)$`, "m").exec(text)?.[1] ?? 0);
    applied = read("parley_ledger_rows_applied_total");
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
  process.stdout.write(
    [
      `rows                        ${rows}, of ${users} users`,
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

/** Rows of the last hour, as the service writes them. */
async function fill(): Promise<void> {
  const { ledger } = moneyKeys(tenant);
  for (let at = 0; at < rows; at += PAGE) {
    const page = redis.pipeline();
    for (let row = at; row < Math.min(rows, at + PAGE); row += 1) {
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
        costMicroUsd: 1_500n,
        priceVersion: "v",
        holdTime: timestampFromMs(Date.now() - 60_000),
      });
      page.xadd(ledger, "*", "v", "1", "r", Buffer.from(toBinary(UsageRecordSchema, record)));
    }
    await page.exec();
  }
}
