import { FinishReason, type Turn } from "../../gen/parley/chat/v1/turn_pb.js";
import { MessageRecordSchema } from "../../gen/parley/storage/v1/message_record_pb.js";
import { SessionRecordSchema } from "../../gen/parley/storage/v1/session_record_pb.js";
import { type TurnLogEntry, TurnLogEntrySchema } from "../../gen/parley/storage/v1/turn_log_pb.js";
import { TurnRecordSchema } from "../../gen/parley/storage/v1/turn_record_pb.js";
import { TurnStepSchema } from "../../gen/parley/storage/v1/turn_step_pb.js";
import { Failure } from "../failure.ts";
import {
  type BeginOutcome,
  type ClaimedTurn,
  MAX_LOG_EVENTS,
  type NewTurn,
  QUEUE_TICKET_MS,
  type StopReason,
  type TurnRef,
  type TurnStore,
  type UsageTotals,
} from "../turns/ports.ts";
import { parseTurnId } from "../turns/turn-id.ts";
import { sequenceOf } from "../turns/turn-log.ts";
import type { AccountIndex, LeaseLook, Touch } from "./account-index.ts";
import { createLogHub } from "./log-hub.ts";
import { firstSequenceOf, gapFailure, trimmedFailure, turnView, usageOf } from "./record-views.ts";
import type { RedisConnection } from "./redis-connection.ts";
import { sessionKeys, stopChannel } from "./redis-keys.ts";
import { createLiveChannels } from "./redis-live.ts";
import { lateFailure, touchStored, wholeSession } from "./redis-session-store.ts";
import { busyFailure, newSessionRecord, QUEUE_FULL_RETRY_MS, sessionOfTurn } from "./session-records.ts";
import { decodeRecord, encodeRecord } from "./stored-formats.ts";

/** A renewal prolongs the session's life too when that has become shorter by this much, in milliseconds, or a tenth of the ttl. */
const SLIDE_AFTER_MS = 60_000;

/** Turns that have ended are taken off the list of leases this many milliseconds later, many at a time. */
const LEASES_FORGOTTEN_MS = 100;

/**
 * Pages of the list of leases that one look goes through at most: what is due there may have ended, or never begun, and
 * must not keep the abandoned turns behind it waiting.
 */
const LEASE_PAGES = 32;

/** The half of the Redis store that keeps turns. */
export function createRedisTurnStore({
  connection,
  index,
  ttlMs,
  leaseMs,
}: {
  connection: RedisConnection;
  index: AccountIndex;
  ttlMs: number;
  leaseMs: number;
}): TurnStore & { close(): Promise<void> } {
  const hub = createLogHub();
  const live = createLiveChannels(connection.client);
  const ended = createEndedLeases(index);
  /** Stands in every nonce of this process, so that a turn's owner can be told of what others want of it. */
  const processId = crypto.randomUUID();
  const nonceOf = (turn: { readonly nonce: string }): string => `${processId}:${turn.nonce}`;

  /** Undefined: no such session. */
  const touchFor = async (turn: NewTurn): Promise<Touch | undefined> => {
    const leasing = { turnId: turn.turnId, leaseMs };
    if (turn.createSession) return index.touchNew(turn, { turn: leasing });
    const touch = await index.touch(turn, leasing);
    if (touch !== undefined) return touch;
    const [owner, created] = await connection.use((client) =>
      client.hmget(sessionKeys(turn).session, "owner", "created"),
    );
    return owner === turn.userId ? index.touchNew(turn, { createTimeMs: Number(created), turn: leasing }) : undefined;
  };

  const getTurn = async (ref: TurnRef): Promise<Turn | undefined> => {
    const keys = turnKeys(ref);
    const reply = await connection.run("parleyGetTurn", [keys.session, keys.turn], []);
    if (reply === null) return undefined;
    const [record, finish, last, prompt, completion, cost] = reply as [Buffer, Buffer, Buffer, Buffer, Buffer, Buffer];
    return turnView(ref, {
      record: decodeRecord(TurnRecordSchema, record),
      finishReason: Number(String(finish)) as FinishReason,
      lastSequence: BigInt(String(last)),
      usage: usageStored(prompt, completion, cost),
    });
  };

  /** Nonces of claims whose answers were lost: repeated, they find the lease that they may have got. */
  const unanswered = new Map<string, string>();
  /** Takes over a turn if it is abandoned; notes in `looks` when to look at it again. */
  const claim = async (
    { tenant, turnId }: { tenant: string; turnId: string },
    looks: Map<string, LeaseLook[]>,
  ): Promise<ClaimedTurn | undefined> => {
    const ref = parseTurnId(turnId);
    if (ref === undefined) return undefined;
    const keys = turnKeys(ref);
    const nonce = unanswered.get(turnId) ?? nonceOf({ nonce: crypto.randomUUID() });
    unanswered.delete(turnId);
    const reply = (await connection
      .run("parleyClaimTurn", [keys.session, keys.messages, keys.turn], [turnId, nonce, leaseMs])
      .catch((error: unknown) => {
        unanswered.set(turnId, nonce);
        throw error;
      })) as [untilMs: number, taken?: TakeReply] | null;
    const ofTenant = looks.get(tenant) ?? [];
    looks.set(tenant, ofTenant);
    ofTenant.push({ turnId, at: reply?.[0] ?? "over" });
    return reply?.[1] === undefined ? undefined : claimedTurn(ref, nonce, reply[1]);
  };
  /** Has a turn found that nobody works on: whoever waits for it says so too, since the list of leases may be lost. */
  const noteLapsed = async ({ tenant, turnId }: Pick<TurnRef, "tenant" | "turnId">): Promise<void> => {
    if (turnId !== "") await index.setLeases(tenant, [{ turnId, at: "now" }]);
  };

  return {
    async beginTurn(turn) {
      if (sequenceOf(turn.firstEntry) !== 1n) throw gapFailure();
      const touch = await touchFor(turn);
      if (touch === undefined) throw new Failure("SESSION_NOT_FOUND");
      const keys = turnKeys(turn);
      const record = turn.createSession ? newSessionRecord(sessionOfTurn(turn), touch.nowMs) : undefined;
      const reply = (await connection.run(
        "parleyBeginTurn",
        [...wholeSession(keys), keys.turn, keys.log],
        [
          turn.turnId,
          turn.userId,
          nonceOf(turn),
          leaseMs,
          QUEUE_TICKET_MS,
          turn.maxQueue,
          turn.windowMessages,
          touch.expireTimeMs,
          ttlMs,
          keys.turnPrefix,
          keys.logPrefix,
          encodeRecord(TurnRecordSchema, turn.record),
          encodeRecord(TurnLogEntrySchema, turn.firstEntry),
          record === undefined ? "" : encodeRecord(SessionRecordSchema, record),
          touch.nowMs,
          MAX_LOG_EVENTS,
          ON_BUSY[turn.onBusy],
          turn.version,
          ...(turn.earlier ?? []).map((message) => encodeRecord(MessageRecordSchema, message)),
        ],
      )) as BeginReply;
      const state = String(reply[0]);
      if (state === "missing") await index.forget(touch.session, touch.expireTimeMs);
      if (state === "late") await index.untouch(touch);
      if (state === "queued" || state === "busy")
        await noteLapsed({ tenant: turn.tenant, turnId: String(reply.at(-1)) });
      return outcomeOf(turn, { state, values: reply.slice(1), nonce: nonceOf(turn) });
    },

    async leaveQueue(ref) {
      const { queue, tickets } = sessionKeys(ref);
      await connection.run("parleyLeaveQueue", [queue, tickets], [ref.turnId]);
    },

    async append(lease, entries, steps = []) {
      const keys = turnKeys(lease);
      const used = usageOf(entries);
      const first = entries.length > 0 ? firstSequenceOf(entries) : (steps[0]?.sequence ?? 0n) + 1n;
      const outcome = await connection.run(
        "parleyAppend",
        [keys.session, keys.turn, keys.log],
        [
          lease.turnId,
          lease.epoch,
          lease.nonce,
          leaseMs,
          String(first),
          used.promptTokens,
          used.completionTokens,
          String(used.costMicroUsd),
          MAX_LOG_EVENTS,
          keys.live,
          entries.length,
          (steps[0]?.line ?? 1) - 1,
          ...entries.map(encodeEntry),
          ...steps.map((step) => encodeRecord(TurnStepSchema, step)),
        ],
      );
      const stop = stopReasonOf(outcome);
      if (stop !== undefined) return stop;
      checkWritten(outcome);
      hub.publish(lease, entries);
      return undefined;
    },

    async commitTurn(lease, commit) {
      const keys = turnKeys(lease);
      const outcome = await connection.run(
        "parleyCommitTurn",
        [keys.session, keys.messages, keys.turn, keys.log],
        [
          lease.turnId,
          lease.epoch,
          lease.nonce,
          String(firstSequenceOf(commit.entries)),
          commit.finishReason,
          commit.promptTokens,
          commit.completionTokens,
          String(commit.costMicroUsd),
          MAX_LOG_EVENTS,
          commit.entries.length,
          keys.live,
          ...commit.entries.map(encodeEntry),
          ...commit.messages.map((message) => encodeRecord(MessageRecordSchema, message)),
        ],
      );
      checkWritten(outcome);
      ended.add(lease);
      hub.publish(lease, commit.entries);
    },

    async renewLease(lease) {
      const keys = turnKeys(lease);
      const reply = await connection.run(
        "parleyRenewLease",
        [keys.session, keys.turn],
        [lease.turnId, lease.epoch, lease.nonce, leaseMs],
      );
      checkWritten(reply);
      const [owner, created, lifeMs, stop] = reply as [Buffer, Buffer, number, Buffer];
      const reason = stop.length === 0 ? undefined : (Number(String(stop)) as StopReason);
      if (lifeMs > ttlMs - Math.min(SLIDE_AFTER_MS, ttlMs / 10)) return reason;
      const touch = await touchStored(index, { ...lease, userId: String(owner) }, Number(String(created)));
      const slid = await connection.run("parleySlideSession", wholeSession(keys), [
        keys.turnPrefix,
        keys.logPrefix,
        touch.expireTimeMs,
        ttlMs,
      ]);
      if (slid !== 1) await index.forget(touch.session, touch.expireTimeMs);
      return reason;
    },

    async releaseLease(lease) {
      const keys = turnKeys(lease);
      const released = await connection.run(
        "parleyReleaseLease",
        [keys.session, keys.turn],
        [lease.turnId, lease.epoch, lease.nonce],
      );
      checkWritten(released);
      await noteLapsed(lease);
    },

    async stopTurn(ref, reason) {
      const keys = turnKeys(ref);
      const reply = await connection.run("parleyStopTurn", [keys.session, keys.turn], [ref.turnId, reason]);
      if (reply === null) return undefined;
      const [nonce] = reply as [Buffer];
      const owner = String(nonce).split(":", 1)[0] ?? "";
      if (owner !== "") await connection.use((client) => client.spublish(stopChannel(owner), ref.turnId));
      return getTurn(ref);
    },

    async claimTurns(limit) {
      const claimed: ClaimedTurn[] = [];
      for (let page = 0; page < LEASE_PAGES && claimed.length < limit; page++) {
        const wanted = limit - claimed.length;
        const due = await index.dueLeases(wanted);
        const looks = new Map<string, LeaseLook[]>();
        // What is not due any more was taken by another.
        const dueIds = new Set(due.map(({ turnId }) => turnId));
        for (const turnId of unanswered.keys()) if (page === 0 && !dueIds.has(turnId)) unanswered.delete(turnId);
        // One that cannot be read, by this release perhaps, must not keep the others from being found.
        const claims = await Promise.allSettled(due.map((turn) => claim(turn, looks)));
        claimed.push(...claims.flatMap((one) => (one.status === "fulfilled" ? (one.value ?? []) : [])));
        // What was taken must not be lost for this: what is still due is looked at again.
        await Promise.allSettled([...looks].map(([tenant, turns]) => index.setLeases(tenant, turns)));
        if (due.length < wanted) break;
      }
      return claimed;
    },

    getTurn,

    async readLog(ref, afterSequence, limit) {
      const keys = turnKeys(ref);
      const first = afterSequence + 1n;
      const reply = await connection.run("parleyReadLog", [keys.session, keys.turn, keys.log], [String(first), limit]);
      if (reply === null) return undefined;
      const [last, found] = reply as [Buffer, [id: Buffer, fields: [name: Buffer, value: Buffer]][]];
      const entries = found.map(([, [, bytes]]) => decodeRecord(TurnLogEntrySchema, bytes));
      const [oldest] = entries;
      // Trimmed away: what comes next is not what was asked for, or nothing is left of what was there.
      if (oldest === undefined ? BigInt(String(last)) >= first : sequenceOf(oldest) !== first) {
        const newest = BigInt(String(last));
        throw trimmedFailure({ oldest: oldest === undefined ? newest + 1n : sequenceOf(oldest), newest });
      }
      return entries;
    },

    follow(ref, onEntries, { everywhere = false } = {}) {
      const unfollow = hub.follow(ref, onEntries);
      if (!everywhere) return unfollow;
      const unsubscribe = live.subscribe(turnKeys(ref).live, (message) => {
        // What is published has just been written, and may not be durable yet: then it only says that there is something.
        const isDurable = message !== undefined && !connection.waitsForReplica;
        const entries = isDurable ? decodeEntries(message) : undefined;
        onEntries(entries ?? []);
      });
      return () => {
        unsubscribe();
        unfollow();
      };
    },

    onStop(onStop) {
      return live.subscribe(stopChannel(processId), (turnId) => {
        if (turnId !== undefined) onStop(String(turnId));
      });
    },

    async close() {
      live.close();
      await ended.flush();
    },
  };
}

/** Turns that have ended leave the list of leases together: nobody waits for that, and who looks finds out by itself. */
function createEndedLeases(index: AccountIndex) {
  const turnsOf = new Map<string, { turnId: string; at: "never" }[]>();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const flush = async (): Promise<void> => {
    clearTimeout(timer);
    timer = undefined;
    const all = [...turnsOf];
    turnsOf.clear();
    await Promise.all(all.map(([tenant, turns]) => index.setLeases(tenant, turns).catch(() => undefined)));
  };
  return {
    add({ tenant, turnId }: TurnRef): void {
      const turns = turnsOf.get(tenant) ?? [];
      turnsOf.set(tenant, turns);
      turns.push({ turnId, at: "never" });
      timer ??= setTimeout(() => void flush(), LEASES_FORGOTTEN_MS);
    },
    flush,
  };
}

/** What begins a turn does with one that runs, as the script takes it. */
const ON_BUSY = {
  enqueue: "",
  reject: "reject",
  interrupt: FinishReason.INTERRUPTED,
  rollback: FinishReason.ROLLED_BACK,
} as const;

/** What a turn has used, as the scripts return its numbers. */
function usageStored(prompt: Buffer, completion: Buffer, cost: Buffer): UsageTotals {
  return {
    promptTokens: Number(String(prompt)),
    completionTokens: Number(String(completion)),
    costMicroUsd: BigInt(String(cost)),
  };
}

/** What the scripts' TAKE returns. */
type TakeReply = [
  epoch: number,
  takeovers: number,
  record: Buffer,
  last: Buffer,
  prompt: Buffer,
  completion: Buffer,
  cost: Buffer,
  stop: Buffer,
  window: Buffer[],
  steps: Buffer[],
];

function claimedTurn(ref: TurnRef, nonce: string, reply: TakeReply): ClaimedTurn {
  const [epoch, takeovers, record, last, prompt, completion, cost, stop, window, steps] = reply;
  return {
    lease: { tenant: ref.tenant, sessionId: ref.sessionId, turnId: ref.turnId, nonce, epoch },
    record: decodeRecord(TurnRecordSchema, record),
    window: window.map((bytes) => decodeRecord(MessageRecordSchema, bytes)),
    steps: steps.map((bytes) => decodeRecord(TurnStepSchema, bytes)),
    lastSequence: BigInt(String(last)),
    usage: usageStored(prompt, completion, cost),
    stop: stop.length === 0 ? undefined : (Number(String(stop)) as StopReason),
    takeovers,
  };
}

/** Entries as the scripts publish them: `<bytes>:<entry>` each. Undefined: they cannot be read by this release. */
function decodeEntries(message: Buffer): TurnLogEntry[] | undefined {
  const entries: TurnLogEntry[] = [];
  try {
    for (let at = 0; at < message.length; ) {
      const colon = message.indexOf(":", at);
      const end = colon + 1 + Number(message.toString("latin1", at, colon));
      entries.push(decodeRecord(TurnLogEntrySchema, message.subarray(colon + 1, end)));
      at = end;
    }
    return entries;
  } catch {
    return undefined;
  }
}

/** The reason that a script gives in the place of a number of entries. */
function stopReasonOf(outcome: unknown): StopReason | undefined {
  return typeof outcome === "number" && outcome <= -100 ? ((-100 - outcome) as StopReason) : undefined;
}

/** What `parleyBeginTurn` returns. */
type BeginReply = [state: Buffer, ...values: unknown[]];

function outcomeOf(
  turn: NewTurn,
  { state, values, nonce }: { state: string; values: readonly unknown[]; nonce: string },
): BeginOutcome {
  switch (state) {
    case "begun": {
      const [epoch, window, version] = values as [number, Buffer[], Buffer];
      const { tenant, sessionId, turnId } = turn;
      return {
        state,
        lease: { tenant, sessionId, turnId, nonce, epoch },
        window: window.map((bytes) => decodeRecord(MessageRecordSchema, bytes)),
        sessionVersion: String(version),
      };
    }
    case "queued":
      return { state, position: Number(values[0]) };
    case "exists":
      return { state };
    case "preempted": {
      const [turnId, reply] = values as [Buffer, TakeReply];
      return { state, running: claimedTurn({ ...turn, turnId: String(turnId) }, nonce, reply) };
    }
    case "busy": {
      const [turnId, last] = values.map(String);
      throw busyFailure({ turnId: turnId ?? "", lastSequence: BigInt(last ?? 0) });
    }
    case "full":
      throw new Failure("SESSION_QUEUE_FULL", { retryAfterMs: QUEUE_FULL_RETRY_MS });
    case "missing":
      throw new Failure("SESSION_NOT_FOUND");
    default:
      throw lateFailure();
  }
}

/** Whether a script wrote, or had written before. */
function checkWritten(outcome: unknown): void {
  if (outcome === -1) throw new Failure("LEASE_LOST");
  if (outcome === -2) throw gapFailure();
  if (outcome === -3) throw new Failure("SESSION_DELETED");
}

function encodeEntry(entry: TurnLogEntry): Buffer {
  return encodeRecord(TurnLogEntrySchema, entry);
}

function turnKeys(ref: TurnRef) {
  const keys = sessionKeys(ref);
  const of = (prefix: string): string => `${prefix}${ref.turnId}`;
  return { ...keys, turn: of(keys.turnPrefix), log: of(keys.logPrefix), live: of(keys.livePrefix) };
}
