import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { Redis } from "ioredis";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import type { UsageRecord, UsageRecordSchema } from "../../gen/parley/usage/v1/usage_record_pb.js";
import { createRedisRollups } from "../../sidecar/rollups-redis.ts";
import { createRedisAccountStore } from "../../src/accounts/redis-account-store.ts";
import { packageVersion } from "../../src/package-facts.ts";
import { connectRedis } from "../../src/store/redis-connection.ts";
import { settled } from "../accounts/calls.ts";
import { startTestApp } from "./parley-app.ts";
import { startRedisServer } from "./redis-server.ts";
import {
  BOOKS_CONSUMER,
  BOOKS_TENANT,
  FIXTURE_YAML,
  RUNNING_REQUEST,
  readBooks,
  readState,
  type StoredBooks,
  type StoredState,
} from "./stored-state.ts";

// `npm run release:fixtures`: lets this release talk for a while and keeps what it left in Redis, for all later releases
// to read. It is caught amid a turn, whose journal has a model call and a tool call, and a sidecar amid a ledger.
const redis = await startRedisServer();
const app = await startTestApp({ redisUrl: redis.url, yaml: FIXTURE_YAML, env: { VERSION: packageVersion() } });
const client = new Redis(redis.url);
try {
  const transport = createConnectTransport({ baseUrl: app.url, httpVersion: "2" });
  const chat = createClient(ChatService, transport);
  const sessions = createClient(SessionService, transport);
  const sessionId = "fixture";
  await sessions.createSession({ sessionId, userId: "u1", metadata: { plan: "gold" } });
  for (const message of ["my name is Ada", "what is my name? 😀"])
    await chat.chat({ sessionId, userId: "u1", message });

  await sessions.createSession({ sessionId: RUNNING_REQUEST.sessionId, userId: RUNNING_REQUEST.userId });
  let runningTurnId = "";
  let called = false;
  for await (const { event } of chat.streamChat(RUNNING_REQUEST)) {
    if (event.case === "turnStarted") runningTurnId = event.value.turnId;
    called ||= event.case === "toolCallCompleted";
    if (called && event.case === "textDelta") break;
  }

  const books = await keepBooks(redis.url);

  const names = (await client.keys("*")).filter((name) => !name.includes(":rate:")).sort();
  // In one transaction: the turn goes on meanwhile.
  const transaction = client.multi();
  for (const name of names) transaction.dumpBuffer(name);
  const dumps = ((await transaction.exec()) ?? []).map(([, dump]) => dump as Buffer);
  const state: StoredState = {
    keys: Object.fromEntries(names.map((name, index) => [name, dumps[index]?.toString("base64") ?? ""])),
    sessionId,
    seen: await readState(redis.url, sessionId),
    runningTurnId,
    books,
  };
  const folder = join(import.meta.dirname, "../fixtures/stored");
  await writeFile(join(folder, `v${packageVersion()}.json`), `${JSON.stringify(state, null, 2)}\n`);
} finally {
  client.disconnect();
  await app.close();
  await redis.stop();
}

/**
 * Lets calls of an account be spent and a sidecar follow them: it has applied a batch, told of an anomaly and suspects another,
 * and has taken rows that it has not applied; a last row nobody has taken.
 */
async function keepBooks(redisUrl: string): Promise<StoredBooks> {
  const connection = connectRedis(redisUrl);
  const tenant = BOOKS_TENANT;
  const accounts = createRedisAccountStore({ connection });
  const rollups = createRedisRollups({ connection, accounts, consumer: BOOKS_CONSUMER });
  try {
    const timeMs = Date.now();
    let calls = 0;
    const spend = async (init: MessageInitShape<typeof UsageRecordSchema>, minutesAgo = 0): Promise<UsageRecord> => {
      calls += 1;
      const holdTime = timestampFromMs(timeMs - minutesAgo * 60_000);
      const row = settled(`c${calls}`, {
        tenant,
        turnId: `t${calls}`,
        version: packageVersion(),
        costMicroUsd: BigInt(1_000 * calls),
        cachedPromptTokens: 1n,
        reasoningTokens: 1n,
        priceVersion: "v",
        holdTime,
        ...init,
      });
      await accounts.settle(row);
      return row;
    };
    for (const minutesAgo of [200, 150, 100]) await spend({ promptTokens: 2_000n }, minutesAgo);
    await spend({ promptTokens: 260_000n });
    for (const turnId of ["before", "loop"]) {
      for (let call = 0; call < 9; call += 1) await spend({ userId: "bob", sessionId: "s2", turnId });
    }
    const grow = (step: number) =>
      spend({ userId: "", sessionId: "growing", promptTokens: BigInt(step * 1_500), completionTokens: 20n });
    for (let step = 1; step <= 4; step += 1) await grow(step);
    const unpriced = await spend({ priceVersion: "", team: "", useCase: "", model: "odd" });
    const applied = (await rollups.apply(tenant, await rollups.take(tenant, 1_000))).entries;
    if (applied.length !== calls) throw new Error("not all was applied");
    for (const suspicion of await rollups.suspicions(tenant)) {
      if (suspicion.kind === "token_burst") await rollups.judge(tenant, suspicion, true);
    }
    await accounts.correct({ ...unpriced, priceVersion: "w", costMicroUsd: 7n });
    await grow(5);
    const taken = await rollups.take(tenant, 2);
    if (taken.length !== 2) throw new Error("the rows were not there");
    await spend({ userId: "new" });
    return { timeMs, appliedRows: applied.length, seen: await readBooks(redisUrl) };
  } finally {
    await connection.close();
  }
}
