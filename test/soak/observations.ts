import type { StreamChatResponse } from "../../gen/parley/chat/v1/chat_service_pb.js";
import type { Message } from "../../gen/parley/chat/v1/message_pb.js";
import type { Session } from "../../gen/parley/chat/v1/session_pb.js";
import type { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import type { UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import type { RecordLine } from "./record.ts";
import type { Schedule, TurnAction } from "./schedule.ts";
import type { ReplicaCall } from "./world.ts";

/** All that was seen of a schedule: what the checkers judge. */
export interface Observations {
  readonly schedule: Schedule;
  readonly clients: ClientsSeen;
  /** The state when all turns had ended. */
  readonly turns: readonly StoredTurn[];
  readonly sessions: readonly StoredSession[];
  readonly account: AccountSeen;
  readonly money: MoneySeen;
  /** Of the clients' turns; not of those who spend from one budget. */
  readonly calls: readonly ReplicaCall[];
  /** How replicas ended that nobody ended. */
  readonly crashes: readonly string[];
  readonly record: readonly RecordLine[];
}

/** What clients saw. */
export interface ClientsSeen {
  readonly readings: Reading[];
  readonly replies: Reply[];
  readonly cancels: { readonly turnId: string; readonly lastSequence: bigint }[];
  /** Sessions whose deletion was asked for, and whether it was confirmed. */
  readonly deletes: Map<string, boolean>;
  /** Errors that no schedule excuses, and clients that waited in vain. */
  readonly complaints: string[];
  retries: number;
  resumes: number;
}

/** One stream, from its first event to its end or to where its client left. */
export interface Reading {
  readonly action: TurnAction;
  /** How the stream was asked for, such as `resume on 2`. */
  readonly how: string;
  /** Empty: no event came. */
  turnId: string;
  readonly afterSequence: bigint;
  readonly events: SeenEvent[];
  end: ReadingEnd;
}

export interface SeenEvent {
  readonly event: StreamChatResponse;
  readonly atMs: number;
}

/** `ended`: the stream ended by itself, without an error; a reason: with an error of ours; `cut`: anything else. */
export type ReadingEnd = "ended" | "cut" | `reason ${string}`;

/** A unary call that was answered, or refused with an end of its turn. */
export interface Reply {
  readonly action: TurnAction;
  /** Empty: the answer was an error. */
  readonly turnId: string;
  readonly response: string;
  readonly finishReason: FinishReason;
  readonly totalTokens: number;
}

export interface StoredTurn {
  readonly turnId: string;
  readonly sessionId: string;
  /** The user's message. */
  readonly message: string;
  readonly finishReason: FinishReason;
  /** How often another replica went on with it. */
  readonly takeovers: number;
  readonly log: readonly TurnLogEntry[];
  /** The turn as further readers get it, each from another replica. */
  readonly replays: readonly (readonly StreamChatResponse[])[];
}

export interface StoredSession {
  readonly session: Session;
  readonly messages: readonly Message[];
  /** Turn that has the lease; empty: none. */
  readonly leaseOf: string;
}

export interface AccountSeen {
  /** Keys without an end of life. */
  readonly immortalKeys: readonly string[];
  /** Ids of sessions that keys name. */
  readonly sessionsOfKeys: ReadonlySet<string>;
  /** Turns on the list of leases. */
  readonly leases: readonly string[];
  /** Active sessions as each replica's gauge has them. */
  readonly gauges: readonly (number | undefined)[];
  /** Sessions that the index of active sessions has. */
  readonly active: ReadonlySet<string>;
  /** Turns that did not end. */
  readonly unended: readonly string[];
}

export interface MoneySeen {
  /** All rows of the ledger, of earlier schedules too. */
  readonly rows: readonly UsageRecord[];
  /** By what follows `use:` in their keys. */
  readonly counters: ReadonlyMap<
    string,
    { readonly cost: bigint; readonly tokens: bigint; readonly heldCost: bigint; readonly heldTokens: bigint }
  >;
  /** Calls that are held though all is over. */
  readonly held: readonly string[];
  /** What the spenders may spend in an hour. */
  readonly capTokens: number;
  /** Times that more was spent and held. */
  readonly overCap: readonly string[];
}
