import type { SessionPosition } from "../turns/ports.ts";
import type { RedisConnection } from "./redis-connection.ts";
import { accountKeys, TENANTS_KEY } from "./redis-keys.ts";

/** A session and its owner, as an account lists them. */
export interface OwnedSession {
  readonly tenant: string;
  readonly sessionId: string;
  readonly userId: string;
}

/** What an account was told about a session that is about to be made or used. */
export interface Touch {
  readonly session: OwnedSession;
  readonly nowMs: number;
  /** The session may live until then, and no longer. */
  readonly expireTimeMs: number;
  /** The end of life that stood there before; empty: none. */
  readonly before: string;
}

/**
 * Which sessions an account has. It lies in another slot than the sessions themselves, so it is told first: a session is
 * made or prolonged only to an end of life that stands here already, and the number of active sessions cannot drift. What a
 * crash leaves between the two steps counts too much, and only until its end of life.
 */
export interface AccountIndex {
  /** Tells of a session that will be made; `createTimeMs` where it is there already but not known. */
  touchNew(
    session: OwnedSession,
    options?: { readonly createTimeMs?: number; readonly turn?: LeasingTurn },
  ): Promise<Touch>;
  /** Tells that a session is used; undefined: it is not known, and almost surely not there. */
  touch(session: OwnedSession, turn?: LeasingTurn): Promise<Touch | undefined>;
  /** The touch came to nothing: what stood there before stands again. */
  untouch(touch: Touch): Promise<void>;
  /** The session, which might have lived until `expireTimeMs`, is not there. */
  forget(session: OwnedSession, expireTimeMs: number): Promise<void>;
  /** The user's sessions that may be there, newest first. */
  list(query: {
    readonly tenant: string;
    readonly userId: string;
    readonly limit: number;
    readonly after?: SessionPosition;
  }): Promise<SessionPosition[]>;
  count(): Promise<number>;
  /** Turns of all tenants whose lease may have run out, at most `limit` of each. */
  dueLeases(limit: number): Promise<{ readonly tenant: string; readonly turnId: string }[]>;
  /** Says when turns are to be looked at again: at a time (ms since the epoch), `now`, or `never`. */
  setLeases(
    tenant: string,
    turns: readonly { readonly turnId: string; readonly at: number | "now" | "never" }[],
  ): Promise<void>;
}

/**
 * A turn that is about to take its session's lease. It is told of with the session, and so before it has the lease: whoever
 * looks for leases that ran out misses none.
 */
export interface LeasingTurn {
  readonly turnId: string;
  readonly leaseMs: number;
}

/** A tenant is registered anew after this long at most, in milliseconds: as long as a lost registration is missed. */
const TENANT_REGISTRATION_MS = 60_000;

export function createAccountIndex({
  connection,
  ttlMs,
}: {
  connection: RedisConnection;
  ttlMs: number;
}): AccountIndex {
  const registeredMs = new Map<string, number>();

  /** A registration outlives every session that is told of before the next one. */
  const registerTenant = async (tenant: string): Promise<void> => {
    const sinceMs = performance.now() - (registeredMs.get(tenant) ?? Number.NEGATIVE_INFINITY);
    if (sinceMs < Math.min(TENANT_REGISTRATION_MS, ttlMs / 2)) return;
    const nowMs = performance.now();
    await connection.run("parleyRegisterTenant", [TENANTS_KEY], [tenant, 2 * ttlMs]);
    registeredMs.set(tenant, nowMs);
  };
  const touchAs = async (
    mode: "use" | "create",
    session: OwnedSession,
    { createTimeMs, turn }: { createTimeMs?: number; turn?: LeasingTurn | undefined },
  ): Promise<Touch | undefined> => {
    await registerTenant(session.tenant);
    const { userSessionsPrefix, leases } = accountKeys(session.tenant);
    const reply = await connection.run(
      "parleyTouchAccount",
      [...keysOf(session), leases],
      [
        session.sessionId,
        session.userId,
        ttlMs,
        userSessionsPrefix,
        mode,
        createTimeMs ?? "",
        turn?.turnId ?? "",
        turn?.leaseMs ?? 0,
      ],
    );
    if (reply === null) return undefined;
    const [nowMs, expireTimeMs, before] = reply as [number, number, number | Buffer];
    return { session, nowMs, expireTimeMs, before: String(before) };
  };

  const listTenants = async (): Promise<string[]> =>
    ((await connection.run("parleyListTenants", [TENANTS_KEY], [])) as Buffer[]).map(String);

  return {
    async touchNew(session, options = {}) {
      const touch = await touchAs("create", session, options);
      if (touch === undefined) throw new TypeError("a new session is always told of");
      return touch;
    },

    touch: (session, turn) => touchAs("use", session, { turn }),

    async untouch({ session, expireTimeMs, before }) {
      await connection.run("parleyUntouchAccount", keysOf(session), [
        session.sessionId,
        session.userId,
        expireTimeMs,
        before,
      ]);
    },

    async forget(session, expireTimeMs) {
      await connection.run("parleyForgetSession", keysOf(session), [session.sessionId, session.userId, expireTimeMs]);
    },

    async list({ tenant, userId, limit, after }) {
      const reply = (await connection.run("parleyListUserSessions", keysOf({ tenant, userId }), [
        userId,
        limit,
        after?.createTimeMs ?? "",
        after?.sessionId ?? "",
      ])) as Buffer[];
      return reply.flatMap((sessionId, index) =>
        index % 2 === 0 ? [{ sessionId: String(sessionId), createTimeMs: Number(String(reply[index + 1])) }] : [],
      );
    },

    async count() {
      const counts = await Promise.all(
        (await listTenants()).map((tenant) => connection.run("parleyCountActive", [accountKeys(tenant).active], [])),
      );
      return counts.reduce<number>((sum, count) => sum + Number(count), 0);
    },

    async dueLeases(limit) {
      const due = await Promise.all(
        (await listTenants()).map(async (tenant) => {
          const turns = (await connection.run("parleyDueLeases", [accountKeys(tenant).leases], [limit])) as Buffer[];
          return turns.map((turnId) => ({ tenant, turnId: String(turnId) }));
        }),
      );
      return due.flat();
    },

    async setLeases(tenant, turns) {
      if (turns.length === 0) return;
      const args = turns.flatMap(({ turnId, at }) => [turnId, at === "never" ? "" : at === "now" ? 0 : at]);
      await connection.run("parleySetLeases", [accountKeys(tenant).leases], args);
    },
  };
}

function keysOf({ tenant, userId }: Pick<OwnedSession, "tenant" | "userId">): [string, string] {
  const { active, userSessionsPrefix } = accountKeys(tenant);
  return [active, `${userSessionsPrefix}${userId}`];
}
