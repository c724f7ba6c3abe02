import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { ChatService, type StreamChatResponse } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { createRedisRollups } from "../../sidecar/rollups-redis.ts";
import { moneyKeys } from "../../src/accounts/account-keys.ts";
import { periodOf } from "../../src/accounts/budget-periods.ts";
import { createRedisAccountStore } from "../../src/accounts/redis-account-store.ts";
import { packageVersion } from "../../src/package-facts.ts";
import { connectRedis } from "../../src/store/redis-connection.ts";
import { applyAll, checkRollups } from "../sidecar/rollup-sums.ts";
import { ledgerOf } from "../support/ledger.ts";
import { startLyingClock } from "../support/lying-clock.ts";
import { startTestApp } from "../support/parley-app.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import {
  BOOKS_CONSUMER,
  BOOKS_TENANT,
  RUNNING_REQUEST,
  readBooks,
  readState,
  type StoredState,
} from "../support/stored-state.ts";

// Every release's state loads for ever.
const folder = join(import.meta.dirname, "../fixtures/stored");
const fixtures = readdirSync(folder);
const HOUR_MS = 3_600_000;

let redis: RedisServer;
beforeAll(async () => {
  redis = await startRedisServer();
});
afterAll(() => redis.stop());

function stateOf(fixture: string): StoredState {
  return JSON.parse(readFileSync(join(folder, fixture), "utf8")) as StoredState;
}

async function restore(fixture: string, redisUrl = redis.url): Promise<StoredState> {
  const state = stateOf(fixture);
  const client = new Redis(redisUrl);
  await client.flushall();
  for (const [name, dump] of Object.entries(state.keys))
    await client.restore(name, HOUR_MS, Buffer.from(dump, "base64"));
  client.disconnect();
  return state;
}

test("the release that package.json names has its fixture", () => {
  expect(fixtures).toContain(`v${packageVersion()}.json`);
});

test.each(fixtures)("what %s stored is read as it was then", async (fixture) => {
  const { sessionId, seen } = await restore(fixture);
  expect(await readState(redis.url, sessionId)).toEqual(seen);
});

test.each(fixtures)("a session of %s goes on", async (fixture) => {
  const { sessionId } = await restore(fixture);
  const app = await startTestApp({ redisUrl: redis.url });
  try {
    const chat = createClient(ChatService, createConnectTransport({ baseUrl: app.url, httpVersion: "2" }));
    const { response } = await chat.chat({ sessionId, userId: "u1", message: "and now?" });
    expect(response).toContain("my name is Ada");
  } finally {
    await app.close();
  }
});

test.each(fixtures)("a turn that %s was cut amid goes on, and what it had done is not done again", async (fixture) => {
  const { runningTurnId } = await restore(fixture);
  if (runningTurnId === undefined) {
    expect(fixture).toBe("v0.1.0.json");
    return;
  }
  // Its team is in no configuration any more, its model is.
  const yaml = "models: { sim-tools-20x50: { endpoints: [{}] } }";
  const app = await startTestApp({ redisUrl: redis.url, yaml });
  try {
    const chat = createClient(ChatService, createConnectTransport({ baseUrl: app.url, httpVersion: "2" }));
    const events: StreamChatResponse["event"][] = [];
    const sequences: bigint[] = [];
    for await (const { sequence, event } of chat.resumeTurn({ turnId: runningTurnId })) {
      if (sequence === 0n) continue;
      sequences.push(sequence);
      events.push(event);
    }
    expect(sequences).toEqual(sequences.map((_, index) => BigInt(index + 1)));
    const cases = events.map((event) => event.case);
    expect(cases.filter((one) => one === "toolCallCompleted")).toHaveLength(1);
    expect(cases.filter((one) => one === "stepRestarted")).toHaveLength(1);
    expect(events.at(-1)).toMatchObject({ value: { finishReason: FinishReason.MAX_ROUNDS } });
    // The clerk's first call and its tool call stand; its second is made again, then the assistant's.
    expect(app.simulated.calls.map(({ model }) => model)).toEqual(["sim-tools-20x50", "gpt-4"]);
    // Whoever repeats the request gets the same turn: its digest is the same in every release.
    for await (const { event } of chat.streamChat(RUNNING_REQUEST)) {
      if (event.case === "turnStarted") expect(event.value.turnId).toBe(runningTurnId);
    }
    expect(app.simulated.callCount).toBe(2);
  } finally {
    await app.close();
  }
});

test("every release from 0.4.0 on has the rollups of its sidecars in its fixture", () => {
  const without = fixtures.filter((fixture) => stateOf(fixture).books === undefined);
  expect(without.toSorted()).toEqual(["v0.1.0.json", "v0.2.0.json", "v0.3.0.json"]);
});

describe.each(fixtures.filter((fixture) => stateOf(fixture).books !== undefined))("the ledger of %s", (fixture) => {
  /** The fixture on a Redis whose clock shows the time of the fixture: histories and anomalies are of that time. */
  const restoreThen = async () => {
    const { books } = stateOf(fixture);
    if (books === undefined) throw new Error("it has no rollups");
    const clock = startLyingClock(`@${new Date(books.timeMs + 1_000).toISOString().slice(0, 19).replace("T", " ")}`);
    const own = await startRedisServer({ env: clock.env });
    onTestFinished(() => own.stop());
    await restore(fixture, own.url);
    const connection = connectRedis(own.url);
    onTestFinished(() => connection.close());
    const accounts = createRedisAccountStore({ connection });
    const rollupsOf = (consumer: string) => createRedisRollups({ connection, accounts, consumer, claimAfterMs: 1 });
    return { books, redisUrl: own.url, client: connection.client, accounts, rollupsOf };
  };

  test("was rolled up, watched and judged as it says today", async () => {
    const { books, redisUrl } = await restoreThen();
    const { seen } = books;
    expect(await readBooks(redisUrl)).toEqual(seen);
    expect(seen.pending).toBe(3);
    expect(seen.suspicions).toMatchObject([{ kind: "call_loop", subject: { id: "bob" } }, { kind: "call_loop" }]);
    expect(seen.anomalies).toMatchObject([
      { kind: "token_burst", subject: { scope: "session" } },
      { kind: "token_burst", subject: { scope: "user", id: "ann" }, history: [2_001, 2_001, 2_001] },
    ]);
  });

  test("is applied to its end, each row once, and what was remembered of calls and sessions is gone on with", async () => {
    const { books, client, accounts, rollupsOf } = await restoreThen();
    const tenant = BOOKS_TENANT;
    // The sidecar that had no answer to its last batch asks again, and is told what it was told.
    const ids = (await client.xrange(moneyKeys(tenant).ledger, "-", "+")).map(([id]) => id);
    const rows = await ledgerOf(accounts, tenant);
    const batch = rows.slice(0, books.appliedRows).map((row, index) => ({ id: ids[index] ?? "", row }));
    expect((await rollupsOf(BOOKS_CONSUMER).apply(tenant, batch)).entries).toHaveLength(books.appliedRows);

    const rollups = rollupsOf("later");
    expect(await applyAll(rollups, tenant)).toBe(books.seen.pending);
    expect(await checkRollups(rollups, accounts, tenant, books.timeMs)).toEqual({ rows: rows.length });
    // The fifth of five prompts that grow: the first four were the older release's. A correction adds to a burst that it had told of.
    const suspicions = await rollups.suspicions(tenant);
    const kinds = suspicions.map(({ kind }) => kind);
    expect(kinds.toSorted()).toEqual(["call_loop", "call_loop", "prompt_growth", "token_burst", "token_burst"]);
    for (const suspicion of suspicions) {
      const isNew = suspicion.kind === "prompt_growth" || suspicion.at === "loop";
      if (isNew || suspicion.kind === "token_burst") {
        expect(await rollups.judge(tenant, suspicion, true), suspicion.kind).toBe(isNew);
      }
    }
    const month = await Array.fromAsync(rollups.read(tenant, "month", periodOf("month", books.timeMs).startMs));
    expect(month.reduce((sum, { unpricedTokens }) => sum + unpricedTokens, 0n)).toBe(0n);
  });
});
