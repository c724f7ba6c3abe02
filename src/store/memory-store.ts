import type { Session } from "../../gen/parley/chat/v1/session_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { MessageRecord } from "../../gen/parley/storage/v1/message_record_pb.js";
import type { SessionRecord } from "../../gen/parley/storage/v1/session_record_pb.js";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import type { TurnRecord } from "../../gen/parley/storage/v1/turn_record_pb.js";
import { Failure } from "../failure.ts";
import {
  type BeginOutcome,
  type Lease,
  MAX_LOG_EVENTS,
  type NewSession,
  type NewTurn,
  QUEUE_TICKET_MS,
  type SessionRef,
  type Store,
  type TurnRef,
} from "../turns/ports.ts";
import { createLogHub } from "./log-hub.ts";
import {
  addUsage,
  checkClosingEntry,
  finishReasonOf,
  firstSequenceOf,
  gapFailure,
  NO_USAGE,
  sequenceOf,
  sessionView,
  timestampMs,
  turnView,
  type UsageTotals,
  usageOf,
} from "./record-views.ts";
import { newSessionRecord, QUEUE_FULL_RETRY_MS, sessionOfTurn, withMetadata } from "./session-records.ts";

export interface MemoryStoreOptions {
  /** A session is gone this long after its last use, in milliseconds. */
  readonly ttlMs: number;
  /** A lease that nobody renews is kept this long, in milliseconds. */
  readonly leaseMs: number;
  /** The clock, in milliseconds since the epoch; for tests. Default: the system's. */
  readonly now?: () => number;
}

/**
 * The embedded store: everything in this process, for its life. Sessions use memory until they expire or are deleted;
 * each operation first drops those that have expired.
 */
export function createMemoryStore({ ttlMs, leaseMs, now = Date.now }: MemoryStoreOptions): Store {
  // All sessions live equally long and each use moves one to the end, so the map's order is the order of expiry.
  const sessions = new Map<string, StoredSession>();
  const hub = createLogHub();

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
  const touch = (ref: SessionRef, session: StoredSession, nowMs = now()): void => {
    session.expireTimeMs = nowMs + ttlMs;
    sessions.delete(nameOf(ref));
    sessions.set(nameOf(ref), session);
  };
  const add = (session: NewSession): StoredSession => {
    const nowMs = now();
    const stored = newSession(session, nowMs);
    touch(session, stored, nowMs);
    return stored;
  };
  const findTurn = (ref: TurnRef): StoredTurn | undefined => find(ref)?.turns.get(ref.turnId);
  const fenced = (lease: Lease): { session: StoredSession; turn: StoredTurn } => {
    const session = find(lease);
    const turn = session?.turns.get(lease.turnId);
    const held = session?.lease;
    // A session lives as long as its turns: one without this turn is another session of the same id.
    if (session === undefined || turn === undefined) throw new Failure("SESSION_DELETED");
    if (!isSame(held, lease)) throw new Failure("LEASE_LOST");
    return { session, turn };
  };

  return {
    async createSession(session) {
      if (find(session) !== undefined) throw new Failure("SESSION_EXISTS");
      return viewOf(session, add(session));
    },

    async getSession(ref) {
      const session = find(ref);
      return session && viewOf(ref, session);
    },

    async listSessions({ tenant, userId, limit, after }) {
      sweep();
      return [...sessions.values()]
        .filter((session) => session.ref.tenant === tenant && session.record.userId === userId)
        .sort((a, b) => comparePositions(positionOf(b), positionOf(a)))
        .filter((session) => after === undefined || comparePositions(positionOf(session), after) < 0)
        .slice(0, limit)
        .map((session) => viewOf(session.ref, session));
    },

    async updateSession(ref, metadata) {
      const session = find(ref);
      if (session === undefined) return undefined;
      session.record = withMetadata(session.record, metadata);
      session.updateTimeMs = now();
      touch(ref, session);
      return viewOf(ref, session);
    },

    async deleteSession(ref) {
      return find(ref) !== undefined && sessions.delete(nameOf(ref));
    },

    async listMessages(ref, { offset, limit }) {
      const page = find(ref)?.messages.slice(offset, offset + limit);
      return page?.flatMap(({ message }) => (message === undefined ? [] : [message]));
    },

    async countActiveSessions() {
      sweep();
      return sessions.size;
    },

    async beginTurn(turn) {
      let session = find(turn);
      if (session === undefined) {
        if (!turn.createSession) throw new Failure("SESSION_NOT_FOUND");
        session = add(sessionOfTurn(turn));
      } else if (session.record.userId !== turn.userId) {
        throw new Failure("SESSION_NOT_FOUND");
      }
      touch(turn, session);
      return begin({ turn, session, nowMs: now(), leaseMs });
    },

    async leaveQueue(ref) {
      find(ref)?.queue.delete(ref.turnId);
    },

    async closeAbandoned(ref, lastSequence, entry) {
      const session = find(ref);
      const turn = session?.turns.get(ref.turnId);
      const { lease } = session ?? {};
      if (session === undefined || turn === undefined || lease?.turnId !== ref.turnId || lease.untilMs > now()) return;
      if (turn.lastSequence !== lastSequence) return;
      checkClosingEntry(lastSequence, entry);
      appendTo(turn, [entry]);
      turn.finishReason = finishReasonOf(entry);
      // Nobody holds this: the lost owner can no longer take its commit for done.
      turn.committedBy = undefined;
      session.lease = undefined;
      session.usage = addUsage(session.usage, turn.usage);
      session.updateTimeMs = now();
      hub.publish(ref, [entry]);
    },

    async append(lease, entries) {
      const { session, turn } = fenced(lease);
      if (appendTo(turn, entries)) turn.usage = addUsage(turn.usage, usageOf(entries));
      session.lease = { ...lease, untilMs: now() + leaseMs };
      hub.publish(lease, entries);
    },

    async commitTurn(lease, commit) {
      if (isSame(findTurn(lease)?.committedBy, lease)) return;
      const { session, turn } = fenced(lease);
      appendTo(turn, commit.entries);
      turn.finishReason = commit.finishReason;
      turn.usage = addUsage(NO_USAGE, commit);
      turn.committedBy = lease;
      session.messages.push(...commit.messages);
      session.usage = addUsage(session.usage, commit);
      session.updateTimeMs = now();
      session.lease = undefined;
      hub.publish(lease, commit.entries);
    },

    async renewLease(lease) {
      const { session } = fenced(lease);
      session.lease = { ...lease, untilMs: now() + leaseMs };
      touch(lease, session);
    },

    async getTurn(ref) {
      const turn = findTurn(ref);
      return turn && turnView(ref, turn);
    },

    async readLog(ref, afterSequence, limit) {
      const turn = findTurn(ref);
      if (turn === undefined) return undefined;
      const oldest = turn.lastSequence - BigInt(turn.log.length) + 1n;
      if (afterSequence + 1n < oldest) throw new Failure("TURN_LOG_TRIMMED");
      const start = Number(afterSequence + 1n - oldest);
      return turn.log.slice(start, start + limit);
    },

    follow: hub.follow,

    async ping() {},

    async close() {
      sessions.clear();
    },
  };
}

interface StoredSession {
  readonly ref: SessionRef;
  record: SessionRecord;
  readonly messages: MessageRecord[];
  readonly turns: Map<string, StoredTurn>;
  /** Waiting turns and when their place lapses, in the order they came. */
  readonly queue: Map<string, number>;
  usage: UsageTotals;
  updateTimeMs: number;
  expireTimeMs: number;
  epoch: number;
  lease: (Lease & { readonly untilMs: number }) | undefined;
}

interface StoredTurn {
  readonly record: TurnRecord;
  log: TurnLogEntry[];
  lastSequence: bigint;
  finishReason: FinishReason;
  usage: UsageTotals;
  committedBy: Lease | undefined;
}

/** Takes the lease, or a place in the queue. */
function begin({
  turn,
  session,
  nowMs,
  leaseMs,
}: {
  turn: NewTurn;
  session: StoredSession;
  nowMs: number;
  leaseMs: number;
}): BeginOutcome {
  const { lease: held, queue } = session;
  const window = turn.windowMessages > 0 ? session.messages.slice(-turn.windowMessages) : [];
  if (held?.turnId === turn.turnId && held.nonce === turn.nonce) {
    session.lease = { ...held, untilMs: nowMs + leaseMs };
    return { state: "begun", lease: leaseOf(held), window };
  }
  if (session.turns.has(turn.turnId)) throw new Failure("LEASE_LOST");

  for (const [turnId, untilMs] of queue) if (untilMs <= nowMs) queue.delete(turnId);
  if (queue.has(turn.turnId)) queue.set(turn.turnId, nowMs + QUEUE_TICKET_MS);
  if (held !== undefined && held.untilMs <= nowMs) {
    const lastSequence = session.turns.get(held.turnId)?.lastSequence ?? 0n;
    return { state: "abandoned", turnId: held.turnId, lastSequence };
  }
  const [head = turn.turnId] = queue.keys();
  if (held !== undefined || head !== turn.turnId) {
    if (!queue.has(turn.turnId) && queue.size >= turn.maxQueue) {
      throw new Failure("SESSION_QUEUE_FULL", { retryAfterMs: QUEUE_FULL_RETRY_MS });
    }
    queue.set(turn.turnId, nowMs + QUEUE_TICKET_MS);
    const ahead = [...queue.keys()].indexOf(turn.turnId);
    return { state: "queued", position: ahead + (held === undefined ? 0 : 1) };
  }

  queue.delete(turn.turnId);
  session.epoch += 1;
  const { tenant, sessionId, turnId, nonce } = turn;
  const lease: Lease = { tenant, sessionId, turnId, nonce, epoch: session.epoch };
  session.lease = { ...lease, untilMs: nowMs + leaseMs };
  session.turns.set(turnId, {
    record: turn.record,
    log: [turn.firstEntry],
    lastSequence: sequenceOf(turn.firstEntry),
    finishReason: FinishReason.UNSPECIFIED,
    usage: NO_USAGE,
    committedBy: undefined,
  });
  return { state: "begun", lease, window };
}

/** Appends what the log lacks. False: it had them all. */
function appendTo(turn: StoredTurn, entries: readonly TurnLogEntry[]): boolean {
  const first = firstSequenceOf(entries);
  if (first > turn.lastSequence + 1n) throw gapFailure();
  const missing = entries.slice(Number(turn.lastSequence + 1n - first));
  if (missing.length === 0) return false;
  turn.log.push(...missing);
  turn.lastSequence += BigInt(missing.length);
  if (turn.log.length > MAX_LOG_EVENTS) turn.log = turn.log.slice(-MAX_LOG_EVENTS);
  return true;
}

function newSession(session: NewSession, nowMs: number): StoredSession {
  return {
    ref: { tenant: session.tenant, sessionId: session.sessionId },
    record: newSessionRecord(session, nowMs),
    messages: [],
    turns: new Map(),
    queue: new Map(),
    usage: NO_USAGE,
    updateTimeMs: nowMs,
    expireTimeMs: nowMs,
    epoch: 0,
    lease: undefined,
  };
}

function viewOf(ref: SessionRef, session: StoredSession): Session {
  return sessionView(ref, { ...session, messageCount: session.messages.length });
}

function leaseOf({ tenant, sessionId, turnId, nonce, epoch }: Lease): Lease {
  return { tenant, sessionId, turnId, nonce, epoch };
}

function isSame(held: Lease | undefined, lease: Lease): boolean {
  return held?.turnId === lease.turnId && held.epoch === lease.epoch && held.nonce === lease.nonce;
}

function positionOf({ ref, record }: StoredSession): { createTimeMs: number; sessionId: string } {
  return { createTimeMs: timestampMs(record.createTime), sessionId: ref.sessionId };
}

/** By time, then by id: the order of Redis's sorted sets. */
function comparePositions(
  a: { createTimeMs: number; sessionId: string },
  b: { createTimeMs: number; sessionId: string },
): number {
  return a.createTimeMs - b.createTimeMs || (a.sessionId < b.sessionId ? -1 : a.sessionId > b.sessionId ? 1 : 0);
}

function nameOf({ tenant, sessionId }: SessionRef): string {
  return `${tenant}/${sessionId}`;
}
