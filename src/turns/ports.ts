import type { JsonObject } from "@bufbuild/protobuf";
import type { Message } from "../../gen/parley/chat/v1/message_pb.js";
import type { Session } from "../../gen/parley/chat/v1/session_pb.js";
import type { FinishReason, Turn } from "../../gen/parley/chat/v1/turn_pb.js";
import type { MessageRecord } from "../../gen/parley/storage/v1/message_record_pb.js";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import type { TurnRecord } from "../../gen/parley/storage/v1/turn_record_pb.js";

/** A session of a tenant. */
export interface SessionRef {
  readonly tenant: string;
  readonly sessionId: string;
}

/** A turn of a session. */
export interface TurnRef extends SessionRef {
  readonly turnId: string;
}

/**
 * The right to write to a session: one turn has it at a time. Every write carries it and is refused with LEASE_LOST when
 * a newer one exists: the epoch rises with each lease, and the nonce tells owners apart where a failover forgot an epoch.
 * SESSION_DELETED takes the place of LEASE_LOST when the turn's session is not there any more.
 */
export interface Lease extends TurnRef {
  readonly epoch: number;
  readonly nonce: string;
}

/**
 * Where sessions live. Any operation may reject with STORE_UNAVAILABLE; then it may or may not have happened, and may be
 * repeated. A session that has expired does not exist.
 */
export interface SessionStore {
  /** Makes a session. SESSION_EXISTS: the id is taken. */
  createSession(session: NewSession): Promise<Session>;
  /** Reads a session without prolonging its life. */
  getSession(ref: SessionRef): Promise<Session | undefined>;
  /** At most `limit` sessions of a user, newest first, those after `after`. */
  listSessions(query: {
    readonly tenant: string;
    readonly userId: string;
    readonly limit: number;
    readonly after?: SessionPosition;
  }): Promise<Session[]>;
  /** Replaces the metadata and prolongs the session's life. */
  updateSession(ref: SessionRef, metadata: JsonObject | undefined): Promise<Session | undefined>;
  /** Removes the session, its history and its turns' logs; fences its running turn. False: there was none. */
  deleteSession(ref: SessionRef): Promise<boolean>;
  /** Messages from `offset` on, oldest first; undefined: no such session. */
  listMessages(
    ref: SessionRef,
    page: { readonly offset: number; readonly limit: number },
  ): Promise<Message[] | undefined>;
  /** Sessions alive now, over all tenants. */
  countActiveSessions(): Promise<number>;
}

/** Place in a user's list of sessions. */
export interface SessionPosition {
  readonly createTimeMs: number;
  readonly sessionId: string;
}

export interface NewSession extends SessionRef {
  readonly userId: string;
  readonly metadata?: JsonObject;
  /** Version of the release that begins it. */
  readonly version: string;
}

/**
 * Where turns live: an append-only log each, and the lease that orders them. Same rejections as {@link SessionStore}.
 * Writes under a lease are idempotent: repeating one whose answer was lost changes nothing and succeeds.
 */
export interface TurnStore {
  /**
   * Tries to begin a turn: takes the session's lease, writes the log's first entry and reads the history's window, in one
   * step. While the session is busy the turn stands in its queue (first in, first out) and the call is repeated, at the
   * least every {@link QUEUE_TICKET_MS} or the place is lost.
   *
   * SESSION_NOT_FOUND: no such session, or another user's. SESSION_QUEUE_FULL: `maxQueue` turns wait already.
   */
  beginTurn(turn: NewTurn): Promise<BeginOutcome>;
  /** Gives up a place in the queue. */
  leaveQueue(ref: TurnRef): Promise<void>;
  /** Ends the turn of an owner that is lost: appends `entry`, its sequence `lastSequence` + 1. A no-op if it has moved on. */
  closeAbandoned(ref: TurnRef, lastSequence: bigint, entry: TurnLogEntry): Promise<void>;
  /** Appends entries, their sequences going on from the log's. Durable when it resolves. LEASE_LOST: nothing was written. */
  append(lease: Lease, entries: readonly TurnLogEntry[]): Promise<void>;
  /** Appends the last entries, adds messages to the history and usage to the session, and gives the lease back. LEASE_LOST as above. */
  commitTurn(lease: Lease, commit: TurnCommit): Promise<void>;
  /** Prolongs the lease. LEASE_LOST: it is another's. */
  renewLease(lease: Lease): Promise<void>;
  /** Where a turn stands. */
  getTurn(ref: TurnRef): Promise<Turn | undefined>;
  /** Entries after a sequence, at most `limit`, oldest first; undefined: no such turn. TURN_LOG_TRIMMED: some of them are gone. */
  readLog(ref: TurnRef, afterSequence: bigint, limit: number): Promise<TurnLogEntry[] | undefined>;
  /**
   * Calls `onEntries` after each durable append to the turn's log that this store knows of, in order; returns how to
   * stop. What was appended before is not repeated: read the log after following, and drop what came twice.
   */
  follow(ref: TurnRef, onEntries: (entries: readonly TurnLogEntry[]) => void): () => void;
}

/** A place in the queue is kept this long after the last try, in milliseconds. */
export const QUEUE_TICKET_MS = 5_000;

/** Events that a log keeps at most; the oldest are trimmed (DESIGN §4). */
export const MAX_LOG_EVENTS = 10_000;

export interface NewTurn extends TurnRef {
  /** Make the session if there is none; a turn that names its session does not. */
  readonly createSession: boolean;
  readonly userId: string;
  /** Version of the release, for a session that is made. */
  readonly version: string;
  readonly record: TurnRecord;
  /** The log's entry 1. */
  readonly firstEntry: TurnLogEntry;
  /** Tells this owner from all others, in this and other processes. */
  readonly nonce: string;
  /** Turns that may wait before a further one is refused. */
  readonly maxQueue: number;
  /** Messages of the history to read. */
  readonly windowMessages: number;
}

export type BeginOutcome =
  | { readonly state: "begun"; readonly lease: Lease; readonly window: readonly MessageRecord[] }
  | { readonly state: "queued" /** Turns ahead, the running one included. */; readonly position: number }
  /** The session's last turn has no end and its owner's lease ran out: close it, then try again. */
  | { readonly state: "abandoned"; readonly turnId: string; readonly lastSequence: bigint };

export interface TurnCommit {
  /** The log's last entries, turn_completed at the end. */
  readonly entries: readonly TurnLogEntry[];
  /** What the history gains. */
  readonly messages: readonly MessageRecord[];
  readonly finishReason: FinishReason;
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly costMicroUsd: bigint;
}

/** Both halves, as adapters provide them. */
export interface Store extends SessionStore, TurnStore {
  /** Resolves when the store answers; rejects with STORE_UNAVAILABLE, or with a sentence why it must not be used. */
  ping(): Promise<void>;
  close(): Promise<void>;
}
