import type { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { MessageRecordSchema } from "../../gen/parley/storage/v1/message_record_pb.js";
import { SessionRecordSchema } from "../../gen/parley/storage/v1/session_record_pb.js";
import { type TurnLogEntry, TurnLogEntrySchema } from "../../gen/parley/storage/v1/turn_log_pb.js";
import { TurnRecordSchema } from "../../gen/parley/storage/v1/turn_record_pb.js";
import { Failure } from "../failure.ts";
import {
  type BeginOutcome,
  MAX_LOG_EVENTS,
  type NewTurn,
  QUEUE_TICKET_MS,
  type TurnRef,
  type TurnStore,
} from "../turns/ports.ts";
import type { AccountIndex, Touch } from "./account-index.ts";
import { createLogHub } from "./log-hub.ts";
import {
  checkClosingEntry,
  finishReasonOf,
  firstSequenceOf,
  gapFailure,
  sequenceOf,
  turnView,
  usageOf,
} from "./record-views.ts";
import type { RedisConnection } from "./redis-connection.ts";
import { sessionKeys } from "./redis-keys.ts";
import { lateFailure, touchStored, wholeSession } from "./redis-session-store.ts";
import { newSessionRecord, QUEUE_FULL_RETRY_MS, sessionOfTurn } from "./session-records.ts";
import { decodeRecord, encodeRecord } from "./stored-formats.ts";

/** A renewal prolongs the session's life too when that has become shorter by this much, in milliseconds, or a tenth of the ttl. */
const SLIDE_AFTER_MS = 60_000;

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
}): TurnStore {
  const hub = createLogHub();

  /** Undefined: no such session. */
  const touchFor = async (turn: NewTurn): Promise<Touch | undefined> => {
    if (turn.createSession) return index.touchNew(turn);
    const touch = await index.touchLately(turn);
    if (touch !== undefined) return touch;
    const [owner, created] = await connection.use((client) =>
      client.hmget(sessionKeys(turn).session, "owner", "created"),
    );
    return owner === turn.userId ? index.touchNew(turn, Number(created)) : undefined;
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
          turn.nonce,
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
        ],
      )) as BeginReply;
      const state = String(reply[0]);
      if (state === "missing") await index.forget(touch.session, touch.expireTimeMs);
      if (state === "late") await index.untouch(touch);
      return outcomeOf(turn, { state, values: reply.slice(1) });
    },

    async leaveQueue(ref) {
      const { queue, tickets } = sessionKeys(ref);
      await connection.run("parleyLeaveQueue", [queue, tickets], [ref.turnId]);
    },

    async closeAbandoned(ref, lastSequence, entry) {
      checkClosingEntry(lastSequence, entry);
      const keys = turnKeys(ref);
      const closed = await connection.run(
        "parleyCloseAbandoned",
        [keys.session, keys.turn, keys.log],
        [
          ref.turnId,
          String(lastSequence),
          finishReasonOf(entry),
          MAX_LOG_EVENTS,
          encodeRecord(TurnLogEntrySchema, entry),
        ],
      );
      if (closed === 1) hub.publish(ref, [entry]);
    },

    async append(lease, entries) {
      const keys = turnKeys(lease);
      const used = usageOf(entries);
      const outcome = await connection.run(
        "parleyAppend",
        [keys.session, keys.turn, keys.log],
        [
          lease.turnId,
          lease.epoch,
          lease.nonce,
          leaseMs,
          String(firstSequenceOf(entries)),
          used.promptTokens,
          used.completionTokens,
          String(used.costMicroUsd),
          MAX_LOG_EVENTS,
          ...entries.map(encodeEntry),
        ],
      );
      checkWritten(outcome);
      hub.publish(lease, entries);
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
          ...commit.entries.map(encodeEntry),
          ...commit.messages.map((message) => encodeRecord(MessageRecordSchema, message)),
        ],
      );
      checkWritten(outcome);
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
      const [owner, created, lifeMs] = reply as [Buffer, Buffer, number];
      if (lifeMs > ttlMs - Math.min(SLIDE_AFTER_MS, ttlMs / 10)) return;
      const touch = await touchStored(index, { ...lease, userId: String(owner) }, Number(String(created)));
      const slid = await connection.run("parleySlideSession", wholeSession(keys), [
        keys.turnPrefix,
        keys.logPrefix,
        touch.expireTimeMs,
        ttlMs,
      ]);
      if (slid !== 1) await index.forget(touch.session, touch.expireTimeMs);
    },

    async getTurn(ref) {
      const keys = turnKeys(ref);
      const reply = await connection.run("parleyGetTurn", [keys.session, keys.turn], []);
      if (reply === null) return undefined;
      const [record, ...rest] = reply as [Buffer, ...Buffer[]];
      const [finish, last, prompt, completion, cost] = rest.map(String);
      return turnView(ref, {
        record: decodeRecord(TurnRecordSchema, record),
        finishReason: Number(finish) as FinishReason,
        lastSequence: BigInt(last ?? 0),
        usage: {
          promptTokens: Number(prompt),
          completionTokens: Number(completion),
          costMicroUsd: BigInt(cost ?? 0),
        },
      });
    },

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
        throw new Failure("TURN_LOG_TRIMMED");
      }
      return entries;
    },

    follow: hub.follow,
  };
}

/** What `parleyBeginTurn` returns. */
type BeginReply = [state: Buffer, ...values: unknown[]];

function outcomeOf(turn: NewTurn, { state, values }: { state: string; values: readonly unknown[] }): BeginOutcome {
  switch (state) {
    case "begun": {
      const [epoch, window] = values as [number, Buffer[]];
      const { tenant, sessionId, turnId, nonce } = turn;
      return {
        state,
        lease: { tenant, sessionId, turnId, nonce, epoch },
        window: window.map((bytes) => decodeRecord(MessageRecordSchema, bytes)),
      };
    }
    case "queued":
      return { state, position: Number(values[0]) };
    case "abandoned":
      return { state, turnId: String(values[0]), lastSequence: BigInt(Number(values[1])) };
    case "full":
      throw new Failure("SESSION_QUEUE_FULL", { retryAfterMs: QUEUE_FULL_RETRY_MS });
    case "missing":
      throw new Failure("SESSION_NOT_FOUND");
    case "lost":
      throw new Failure("LEASE_LOST");
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
  return { ...keys, turn: `${keys.turnPrefix}${ref.turnId}`, log: `${keys.logPrefix}${ref.turnId}` };
}
