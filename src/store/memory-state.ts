import type { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { MessageRecord } from "../../gen/parley/storage/v1/message_record_pb.js";
import type { SessionRecord } from "../../gen/parley/storage/v1/session_record_pb.js";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import type { TurnRecord } from "../../gen/parley/storage/v1/turn_record_pb.js";
import type { TurnStep } from "../../gen/parley/storage/v1/turn_step_pb.js";
import {
  type Lease,
  type NewSession,
  NO_USAGE,
  type SessionRef,
  type StopReason,
  type TurnRef,
  type UsageTotals,
} from "../turns/ports.ts";
import { newSessionRecord } from "./session-records.ts";

/** A session with its turns. */
export interface StoredSession {
  readonly ref: SessionRef;
  record: SessionRecord;
  readonly messages: MessageRecord[];
  readonly turns: Map<string, StoredTurn>;
  /** Waiting turns in the order they will begin. */
  queue: { readonly turnId: string; untilMs: number }[];
  usage: UsageTotals;
  updateTimeMs: number;
  expireTimeMs: number;
  epoch: number;
  lease: (Lease & { readonly untilMs: number }) | undefined;
}

export interface StoredTurn {
  readonly record: TurnRecord;
  readonly windowMessages: number;
  log: TurnLogEntry[];
  lastSequence: bigint;
  readonly steps: TurnStep[];
  stop: StopReason | undefined;
  takeovers: number;
  finishReason: FinishReason;
  usage: UsageTotals;
  committedBy: Lease | undefined;
}

/** All sessions, and when each of them is gone. */
export interface MemoryState {
  readonly sessions: ReadonlyMap<string, StoredSession>;
  now(): number;
  /** A session that has not expired. */
  find(ref: SessionRef): StoredSession | undefined;
  findTurn(ref: TurnRef): StoredTurn | undefined;
  add(session: NewSession): StoredSession;
  /** Prolongs a session's life. */
  touch(session: StoredSession): void;
  remove(ref: SessionRef): boolean;
  /** Drops the sessions that have expired. */
  sweep(): void;
  clear(): void;
}

export function createMemoryState({ ttlMs, now }: { ttlMs: number; now: () => number }): MemoryState {
  // All sessions live equally long and each use moves one to the end, so the map's order is the order of expiry.
  const sessions = new Map<string, StoredSession>();

  const sweep = (): void => {
    const nowMs = now();
    for (const [name, session] of sessions) {
      if (session.expireTimeMs > nowMs) return;
      sessions.delete(name);
    }
  };
  const find = (ref: SessionRef): StoredSession | undefined => {
    sweep();
    return sessions.get(nameOf(ref));
  };
  const touch = (session: StoredSession, nowMs = now()): void => {
    session.expireTimeMs = nowMs + ttlMs;
    sessions.delete(nameOf(session.ref));
    sessions.set(nameOf(session.ref), session);
  };
  return {
    sessions,
    now,
    find,
    findTurn: (ref) => find(ref)?.turns.get(ref.turnId),
    add(session) {
      const nowMs = now();
      const stored = newSession(session, nowMs);
      touch(stored, nowMs);
      return stored;
    },
    touch: (session) => touch(session),
    remove: (ref) => find(ref) !== undefined && sessions.delete(nameOf(ref)),
    sweep,
    clear: () => sessions.clear(),
  };
}

/** The history's newest messages. */
export function windowOf(session: StoredSession, messages: number): MessageRecord[] {
  return messages > 0 ? session.messages.slice(-messages) : [];
}

function newSession(session: NewSession, nowMs: number): StoredSession {
  return {
    ref: { tenant: session.tenant, sessionId: session.sessionId },
    record: newSessionRecord(session, nowMs),
    messages: [],
    turns: new Map(),
    queue: [],
    usage: NO_USAGE,
    updateTimeMs: nowMs,
    expireTimeMs: nowMs,
    epoch: 0,
    lease: undefined,
  };
}

function nameOf({ tenant, sessionId }: SessionRef): string {
  return `${tenant}/${sessionId}`;
}
