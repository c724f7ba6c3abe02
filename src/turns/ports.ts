import type { JsonObject } from "@bufbuild/protobuf";
import type { Message } from "../../gen/parley/chat/v1/message_pb.js";
import type { Session } from "../../gen/parley/chat/v1/session_pb.js";
import type { FinishReason, Turn } from "../../gen/parley/chat/v1/turn_pb.js";
import type { MessageRecord } from "../../gen/parley/storage/v1/message_record_pb.js";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import type { TurnRecord } from "../../gen/parley/storage/v1/turn_record_pb.js";
import type { TurnStep } from "../../gen/parley/storage/v1/turn_step_pb.js";

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
  /** The history's newest messages, oldest first, as the next turn would get them; undefined: no such session. */
  readWindow(ref: SessionRef, messages: number): Promise<MessageRecord[] | undefined>;
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
 * Where turns live: an append-only log each, the journal of their calls, and the lease that orders them. Same rejections as
 * {@link SessionStore}. Writes under a lease are idempotent: repeating one whose answer was lost changes nothing and succeeds.
 */
export interface TurnStore {
  /**
   * Tries to begin a turn: takes the session's lease, writes the log's first entry and reads the history's window, in one
   * step. While the session is busy the turn stands in its queue (first in, first out) and the call is repeated, at the
   * least every {@link QUEUE_TICKET_MS} or the place is lost.
   *
   * SESSION_NOT_FOUND: no such session, or another user's. SESSION_QUEUE_FULL: `maxQueue` turns wait already. SESSION_BUSY:
   * the session has a running turn, which the failure's cursor names, and `onBusy` is `reject`.
   */
  beginTurn(turn: NewTurn): Promise<BeginOutcome>;
  /** Gives up a place in the queue. */
  leaveQueue(ref: TurnRef): Promise<void>;
  /**
   * Appends entries, their sequences going on from the log's, and lines of the journal. Durable when it resolves.
   * LEASE_LOST: nothing was written. Resolves with a reason when somebody wants the turn to end: then nothing was written
   * either, and the turn is to be committed with what it has.
   */
  append(lease: Lease, entries: readonly TurnLogEntry[], steps?: readonly TurnStep[]): Promise<StopReason | undefined>;
  /** Appends the last entries, adds messages to the history and usage to the session, and gives the lease back. LEASE_LOST as above. */
  commitTurn(lease: Lease, commit: TurnCommit): Promise<void>;
  /** Prolongs the lease; resolves with a reason when somebody wants the turn to end. LEASE_LOST: it is another's. */
  renewLease(lease: Lease): Promise<StopReason | undefined>;
  /** Gives the lease up amid the turn: whoever looks for abandoned turns finds it at once. */
  releaseLease(lease: Lease): Promise<void>;
  /** Asks for a running turn's end and tells its owner; of several reasons the first counts. Undefined: no such turn. */
  stopTurn(ref: TurnRef, reason: StopReason): Promise<Turn | undefined>;
  /** Takes the leases of turns whose owners are lost, at most `limit`. */
  claimTurns(limit: number): Promise<ClaimedTurn[]>;
  /** Where a turn stands. */
  getTurn(ref: TurnRef): Promise<Turn | undefined>;
  /** Entries after a sequence, at most `limit`, oldest first; undefined: no such turn. TURN_LOG_TRIMMED: some of them are gone. */
  readLog(ref: TurnRef, afterSequence: bigint, limit: number): Promise<TurnLogEntry[] | undefined>;
  /**
   * Calls `onEntries` after each durable append to the turn's log that this store knows of, in order; returns how to
   * stop. What was appended before is not repeated: read the log after following, and drop what came twice. Appends of
   * other processes are known of only with `everywhere`; then `onEntries` may be called without entries: some were missed.
   */
  follow(
    ref: TurnRef,
    onEntries: (entries: readonly TurnLogEntry[]) => void,
    options?: { readonly everywhere?: boolean },
  ): () => void;
  /** Calls `onStop` with the id of a turn of this store's process that somebody wants to end; returns how to stop. */
  onStop(onStop: (turnId: string) => void): () => void;
}

/** A place in the queue is kept this long after the last try, in milliseconds. */
export const QUEUE_TICKET_MS = 5_000;

/** Events that a log keeps at most; the oldest are trimmed (DESIGN §4). */
export const MAX_LOG_EVENTS = 10_000;

/** Why a turn is ended from outside. */
export type StopReason =
  | FinishReason.CANCELLED
  | FinishReason.DEADLINE
  | FinishReason.INTERRUPTED
  | FinishReason.ROLLED_BACK;

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
  /** What to do while the session has a running turn. */
  readonly onBusy: "enqueue" | "reject" | "interrupt" | "rollback";
  /** History, oldest first, of a session that is made. Absent: none. One that is there keeps its own. */
  readonly earlier?: readonly MessageRecord[];
}

export type BeginOutcome =
  | {
      readonly state: "begun";
      readonly lease: Lease;
      readonly window: readonly MessageRecord[];
      /** Version of the release that began the session; empty: not known, a release before 0.5.0. */
      readonly sessionVersion: string;
    }
  | { readonly state: "queued" /** Turns ahead, the running one included. */; readonly position: number }
  /** Another call has begun this very turn: read it. */
  | { readonly state: "exists" }
  /** The running turn is the caller's now, to be ended; then try again. */
  | { readonly state: "preempted"; readonly running: ClaimedTurn };

/** A turn whose lease was taken from another owner: all that is needed to go on with it. */
export interface ClaimedTurn {
  readonly lease: Lease;
  readonly record: TurnRecord;
  readonly window: readonly MessageRecord[];
  readonly steps: readonly TurnStep[];
  /** Sequence of the newest entry in its log. */
  readonly lastSequence: bigint;
  /** Tokens and cost that its log records. */
  readonly usage: UsageTotals;
  /** Why it is to be ended, if somebody wants that. */
  readonly stop: StopReason | undefined;
  /** How often the turn has lost its owner; one that gave it up was not lost. */
  readonly takeovers: number;
}

/** Tokens and cost, added up. */
export interface UsageTotals {
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly costMicroUsd: bigint;
}

export const NO_USAGE: UsageTotals = Object.freeze({ promptTokens: 0, completionTokens: 0, costMicroUsd: 0n });

export interface TurnCommit extends UsageTotals {
  /** The log's last entries, turn_completed at the end. */
  readonly entries: readonly TurnLogEntry[];
  /** What the history gains. */
  readonly messages: readonly MessageRecord[];
  readonly finishReason: FinishReason;
}

/** Which call a request with an idempotency key is. */
export interface KeyClaim {
  readonly tenant: string;
  readonly userId: string;
  readonly key: string;
  /** Digest of the request. */
  readonly requestHash: string;
  /** The turn that the request is, if nobody claimed the key before. */
  readonly turnId: string;
}

/**
 * Remembers idempotency keys, per user, for {@link KEY_TTL_MS}. The claim comes before the turn: whoever finds a claim whose
 * turn has not begun completes it.
 */
export interface KeyStore {
  /** Claims a key, or says whose it is: the turn of the first claim, its request's digest, and how far the turn has come. */
  claimKey(
    claim: KeyClaim,
  ): Promise<{ readonly turnId: string; readonly requestHash: string; readonly state: KeyState }>;
  /** Says how far the claimed turn has come; never back. */
  markKey(claim: KeyClaim, state: "admitted" | "begun"): Promise<void>;
  /** The claimed turn was refused: the key is free again, unless the turn has begun. */
  releaseKey(claim: KeyClaim): Promise<void>;
}

/**
 * `new`: claimed by this very call; `claimed`: by another; `admitted`: whoever repeats the request has nothing to pay any
 * more; `begun`: the turn has a log, if it has not expired.
 */
export type KeyState = "new" | "claimed" | "admitted" | "begun";

/** An idempotency key is remembered this long, in milliseconds (DESIGN §4). */
export const KEY_TTL_MS = 86_400_000;

/** Both halves, as adapters provide them. */
export interface Store extends SessionStore, TurnStore, KeyStore {
  /** Resolves when the store answers; rejects with STORE_UNAVAILABLE, or with a sentence why it must not be used. */
  ping(): Promise<void>;
  close(): Promise<void>;
}
