import type { StreamChatResponse } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { TurnRecordSchema } from "../../gen/parley/storage/v1/turn_record_pb.js";
import { Failure } from "../../src/failure.ts";
import { accountKeys, sessionKeys, WRITTEN_SCHEMA_KEY } from "../../src/store/redis-keys.ts";
import { decodeRecord } from "../../src/store/stored-formats.ts";
import { MAX_LOG_EVENTS, type TurnRef } from "../../src/turns/ports.ts";
import { parseTurnId } from "../../src/turns/turn-id.ts";
import { chatOf } from "./clients.ts";
import type { AccountSeen, StoredSession, StoredTurn } from "./observations.ts";
import { REPLICAS, SPENDER } from "./schedule.ts";
import { pauseFor, type World } from "./world.ts";

/** Between two looks whether all is quiet, in milliseconds. */
const LOOK_MS = 50;

/** The list of leases is tidied up by those who look for lost owners: soon, not at once. In milliseconds. */
const TIDY_MS = 6_000;

/** So often an observer's own look at the store is tried, every so many milliseconds. */
const TRIES = 20;
const TRY_MS = 250;

const TENANT = "default";

const SESSION_KEY = /^\{s:default\/([^}]+)\}:session$/;

/**
 * Removes sessions, and forgets those that are active by the index only, which would stay until the end of a life that they
 * never had: the next schedule begins without them.
 */
export async function removeSessions(world: World, sessions: readonly StoredSession[]): Promise<void> {
  for (const { session } of sessions) await world.store.deleteSession({ tenant: TENANT, sessionId: session.sessionId });
  await world.connection.use((client) => client.del(accountKeys(TENANT).active));
}

/** Removes the sessions of those who spend: only their bill is looked at. */
export async function removeSpenders(world: World): Promise<void> {
  for (const sessionId of idsIn(await keysLike(world, "{s:*}:session"), SESSION_KEY)) {
    const ref = { tenant: TENANT, sessionId };
    if ((await world.store.getSession(ref))?.userId === SPENDER) await world.store.deleteSession(ref);
  }
}

/** Waits until all turns of the world have ended; returns those that have not after `patienceMs`. */
export async function untilQuiet(world: World, { patienceMs }: { patienceMs: number }): Promise<string[]> {
  const untilMs = performance.now() + patienceMs;
  for (;;) {
    const running = await patiently(() => runningTurns(world));
    if (running.length === 0 || performance.now() > untilMs) return running;
    await pauseFor(LOOK_MS);
  }
}

async function runningTurns(world: World): Promise<string[]> {
  const running: string[] = [];
  for (const ref of await turnsOf(world)) {
    const turn = await world.store.getTurn(ref);
    if (turn?.finishReason === FinishReason.UNSPECIFIED) running.push(ref.turnId);
  }
  return running;
}

/** Repeats what only reads, or may be repeated, while Redis comes back or a busy machine lets it wait. */
export async function patiently<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (attempt === TRIES || !(error instanceof Failure) || error.reason !== "STORE_UNAVAILABLE") throw error;
      await pauseFor(TRY_MS);
    }
  }
}

/** Reads all turns and sessions that are there, each turn by further readers too. */
export async function readFinalState(
  world: World,
  { unended, patienceMs }: { unended: readonly string[]; patienceMs: number },
): Promise<{ turns: StoredTurn[]; sessions: StoredSession[]; account: AccountSeen }> {
  const takeovers = Map.groupBy(
    world.record().flatMap((line) => (line.kind === "owner" && line.takeover ? [line] : [])),
    ({ turnId }) => turnId,
  );
  const turns: StoredTurn[] = [];
  const sessions: StoredSession[] = [];
  for (const ref of await turnsOf(world)) {
    const turn = await readTurn(world, ref, {
      replayed: !unended.includes(ref.turnId),
      takeovers: takeovers.get(ref.turnId)?.length ?? 0,
      patienceMs,
    });
    if (turn !== undefined) turns.push(turn);
  }
  // What requests made; the one other key is the release's own note, made as a process starts, and never expires.
  const keys = (await keysLike(world, "*")).filter((key) => key !== WRITTEN_SCHEMA_KEY);
  for (const sessionId of idsIn(keys, SESSION_KEY)) {
    const ref = { tenant: TENANT, sessionId };
    const session = await world.store.getSession(ref);
    const messages = await world.store.listMessages(ref, { offset: 0, limit: 10_000 });
    const leaseOf = await world.connection.use((client) => client.hget(sessionKeys(ref).session, "turn"));
    if (session !== undefined && messages !== undefined) sessions.push({ session, messages, leaseOf: leaseOf ?? "" });
  }
  return { turns, sessions, account: await readAccount(world, { keys, unended }) };
}

function keysLike(world: World, pattern: string): Promise<string[]> {
  return world.connection.use((client) => client.keys(pattern));
}

async function turnsOf(world: World): Promise<TurnRef[]> {
  const keys = await keysLike(world, "*:turn:*");
  return idsIn(keys, /:turn:(.+)$/).flatMap((id) => parseTurnId(id) ?? []);
}

async function readTurn(
  world: World,
  ref: TurnRef,
  { replayed, takeovers, patienceMs }: { replayed: boolean; takeovers: number; patienceMs: number },
): Promise<StoredTurn | undefined> {
  const keys = sessionKeys(ref);
  const record = await world.connection.use((client) => client.hgetBuffer(`${keys.turnPrefix}${ref.turnId}`, "record"));
  const turn = await world.store.getTurn(ref);
  const log = await world.store.readLog(ref, 0n, MAX_LOG_EVENTS);
  if (!record || turn === undefined || log === undefined) return undefined;
  const numbers = replayed ? Array.from({ length: REPLICAS }, (_, number) => number) : [];
  return {
    turnId: ref.turnId,
    sessionId: ref.sessionId,
    message: decodeRecord(TurnRecordSchema, record).message,
    finishReason: turn.finishReason,
    takeovers,
    log,
    replays: await Promise.all(numbers.map((number) => replay(world, { turnId: ref.turnId, number, patienceMs }))),
  };
}

async function replay(
  world: World,
  { turnId, number, patienceMs }: { turnId: string; number: number; patienceMs: number },
): Promise<StreamChatResponse[]> {
  const events: StreamChatResponse[] = [];
  const chat = await chatOf(world, number, number % 3);
  try {
    // A log that a defect has left without an end is read for ever.
    for await (const event of chat.resumeTurn({ turnId }, { timeoutMs: patienceMs })) {
      if (event.sequence > 0n) events.push(event as unknown as StreamChatResponse);
    }
  } catch {
    // Turns end their readers' calls with errors; what was read by then is what counts.
  }
  return events;
}

async function readAccount(
  world: World,
  { keys, unended }: { keys: readonly string[]; unended: readonly string[] },
): Promise<AccountSeen> {
  const immortalKeys: string[] = [];
  for (const key of keys) {
    const lifeMs = await world.connection.use((client) => client.pttl(key));
    if (lifeMs === -1) immortalKeys.push(key);
  }
  const untilMs = performance.now() + TIDY_MS;
  let leases: string[];
  do {
    leases = await world.connection.use((client) => client.zrange(accountKeys(TENANT).leases, "0", "-1"));
  } while (leases.length > 0 && performance.now() < untilMs && (await pauseFor(LOOK_MS)) === undefined);
  const active = await world.connection.use((client) => client.zrange(accountKeys(TENANT).active, "0", "-1"));
  const gauges = await Promise.all(
    Array.from({ length: REPLICAS }, async (_, number) =>
      (await world.replica(number)).metric("parley_active_sessions"),
    ),
  );
  return {
    immortalKeys,
    sessionsOfKeys: new Set(idsIn(keys, /^\{s:default\/([^}]+)\}/)),
    leases,
    gauges,
    active: new Set(active.map((member) => member.slice(0, member.indexOf("/")))),
    unended,
  };
}

/** What a pattern's group finds in keys, each once. */
function idsIn(keys: readonly string[], pattern: RegExp): string[] {
  return [...new Set(keys.flatMap((key) => pattern.exec(key)?.[1] ?? []))];
}
