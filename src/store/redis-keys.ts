import type { SessionRef } from "../turns/ports.ts";

/**
 * Names of all keys. What stands in braces decides the slot: a session's keys are together, an account's keys are
 * together, and a script takes keys of one of them only. Every key of a tenant has a TTL.
 */

/** A session's keys: of one slot. */
export interface SessionKeys {
  /** Hash: record (SessionRecord), owner, version, created, updated and expire (ms), messages, prompt, completion, cost; epoch, nonce, turn, until (ms), ticket. */
  readonly session: string;
  /** List of MessageRecords, oldest first. */
  readonly messages: string;
  /** Sorted set: ids of turns, by when their keys expire (ms). */
  readonly turns: string;
  /** Sorted set: ids of waiting turns, in the order they came. */
  readonly queue: string;
  /** Sorted set: ids of waiting turns, by when their place lapses (ms). */
  readonly tickets: string;
  /**
   * Prefix of `turn:<id>`, hash: record (TurnRecord), epoch, nonce, last, finish, prompt, completion, cost, window (messages);
   * while it runs also stop (finish reason), takeovers, steps (lines of the journal), s1, s2 … (TurnStep).
   */
  readonly turnPrefix: string;
  /** Prefix of `log:<id>`, stream: ids are `<sequence>-0`, field `e` is the TurnLogEntry. */
  readonly logPrefix: string;
  /** Prefix of `live:<id>`, a sharded channel: what is appended to the log, where anybody listens. */
  readonly livePrefix: string;
}

export function sessionKeys({ tenant, sessionId }: SessionRef): SessionKeys {
  const tag = `{s:${tenant}/${sessionId}}`;
  return {
    session: `${tag}:session`,
    messages: `${tag}:messages`,
    turns: `${tag}:turns`,
    queue: `${tag}:queue`,
    tickets: `${tag}:tickets`,
    turnPrefix: `${tag}:turn:`,
    logPrefix: `${tag}:log:`,
    livePrefix: `${tag}:live:`,
  };
}

/** An account's keys: of one slot. */
export interface AccountKeys {
  /** Sorted set: `<session>/<user>` of every session that may be alive, by when it expires (ms). */
  readonly active: string;
  /** Prefix of `sessions:<user>`, sorted set: the user's sessions, by creation (ms). */
  readonly userSessionsPrefix: string;
  /** Prefix of `rate:<user>`, counter. */
  readonly ratePrefix: string;
  /** Sorted set: turns that have or are about to have a lease, by when to look whether it ran out (ms). */
  readonly leases: string;
  /** Prefix of `idempotency:<digest of user and key>`, hash: v (1), turn, hash (the request's digest), state. */
  readonly idempotencyPrefix: string;
}

export function accountKeys(tenant: string): AccountKeys {
  const tag = `{a:${tenant}}`;
  return {
    active: `${tag}:active`,
    userSessionsPrefix: `${tag}:sessions:`,
    ratePrefix: `${tag}:rate:`,
    leases: `${tag}:leases`,
    idempotencyPrefix: `${tag}:idempotency:`,
  };
}

/** Sorted set: tenants that may have a session, by when the last one expires at the earliest (ms). */
export const TENANTS_KEY = "{tenants}:active";

/** Sorted set of one member, `newest`: the newest schema version that records were written with. It never expires. */
export const WRITTEN_SCHEMA_KEY = "{parley}:written-schema";

/** Sharded channel of a process: ids of its turns that somebody wants to end. */
export function stopChannel(processId: string): string {
  return `{p:${processId}}:stop`;
}
