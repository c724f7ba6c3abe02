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
  touchNew(session: OwnedSession, createTimeMs?: number): Promise<Touch>;
  /** Tells that a session is used; undefined: it is not known, and almost surely not there. */
  touch(session: OwnedSession): Promise<Touch | undefined>;
  /**
   * The same, but a touch of this process that is not old stands for a new one: the end of life that it told of holds. A
   * session in steady use is so prolonged once in a while instead of at each turn, and its turns spare a round trip.
   */
  touchLately(session: OwnedSession): Promise<Touch | undefined>;
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
}

/** A tenant is registered anew after this long at most, in milliseconds: as long as a lost registration is missed. */
const TENANT_REGISTRATION_MS = 60_000;

/** A touch is not old for this long at most, in milliseconds, or a tenth of the ttl: as much earlier a session may end. */
const TOUCH_HOLDS_MS = 60_000;

/** Touches that are remembered; the oldest go first. */
const MOST_TOUCHES = 10_000;

export function createAccountIndex({
  connection,
  ttlMs,
}: {
  connection: RedisConnection;
  ttlMs: number;
}): AccountIndex {
  const registeredMs = new Map<string, number>();
  const touches = createRecentTouches(Math.min(TOUCH_HOLDS_MS, ttlMs / 10));

  /** A registration outlives every session that is told of before the next one. */
  const registerTenant = async (tenant: string): Promise<void> => {
    const sinceMs = performance.now() - (registeredMs.get(tenant) ?? Number.NEGATIVE_INFINITY);
    if (sinceMs < Math.min(TENANT_REGISTRATION_MS, ttlMs / 2)) return;
    const nowMs = performance.now();
    await connection.run("parleyRegisterTenant", [TENANTS_KEY], [tenant, 2 * ttlMs]);
    registeredMs.set(tenant, nowMs);
  };
  const touchAs = async (mode: "use" | "create", session: OwnedSession, created = ""): Promise<Touch | undefined> => {
    await registerTenant(session.tenant);
    const reply = await connection.run("parleyTouchAccount", keysOf(session), [
      session.sessionId,
      session.userId,
      ttlMs,
      accountKeys(session.tenant).userSessionsPrefix,
      mode,
      created,
    ]);
    if (reply === null) return undefined;
    const [nowMs, expireTimeMs, before] = reply as [number, number, number | Buffer];
    touches.add(session, { nowMs, expireTimeMs });
    return { session, nowMs, expireTimeMs, before: String(before) };
  };

  return {
    async touchNew(session, createTimeMs) {
      const touch = await touchAs("create", session, createTimeMs === undefined ? "" : String(createTimeMs));
      if (touch === undefined) throw new TypeError("a new session is always told of");
      return touch;
    },

    touch: (session) => touchAs("use", session),

    async touchLately(session) {
      const recent = touches.find(session);
      // What stood there before is the same: there is nothing to take back.
      if (recent !== undefined) return { session, ...recent, before: String(recent.expireTimeMs) };
      return touchAs("use", session);
    },

    async untouch({ session, expireTimeMs, before }) {
      touches.remove(session);
      await connection.run("parleyUntouchAccount", keysOf(session), [
        session.sessionId,
        session.userId,
        expireTimeMs,
        before,
      ]);
    },

    async forget(session, expireTimeMs) {
      touches.remove(session);
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
      const tenants = (await connection.run("parleyListTenants", [TENANTS_KEY], [])) as Buffer[];
      const counts = await Promise.all(
        tenants.map((tenant) => connection.run("parleyCountActive", [accountKeys(String(tenant)).active], [])),
      );
      return counts.reduce<number>((sum, count) => sum + Number(count), 0);
    },
  };
}

function keysOf({ tenant, userId }: Pick<OwnedSession, "tenant" | "userId">): [string, string] {
  const { active, userSessionsPrefix } = accountKeys(tenant);
  return [active, `${userSessionsPrefix}${userId}`];
}

/** What a touch told. */
type Told = Pick<Touch, "nowMs" | "expireTimeMs">;

/**
 * The touches of this process that are not older than `holdsMs`. They are hints: a session that was deleted since, here or
 * elsewhere, is not there when its turn is to begin, and one that was made anew has a later end of life, told by whoever made it.
 */
function createRecentTouches(holdsMs: number) {
  const byName = new Map<string, Told & { readonly untilMs: number }>();
  const nameOf = ({ tenant, sessionId, userId }: OwnedSession): string => `${tenant}/${sessionId}/${userId}`;
  return {
    add(session: OwnedSession, told: Told): void {
      const name = nameOf(session);
      byName.delete(name);
      byName.set(name, { ...told, untilMs: performance.now() + holdsMs });
      const [oldest] = byName.size > MOST_TOUCHES ? byName.keys() : [];
      if (oldest !== undefined) byName.delete(oldest);
    },
    find(session: OwnedSession): Told | undefined {
      const touch = byName.get(nameOf(session));
      if (touch === undefined || touch.untilMs < performance.now()) return undefined;
      return { nowMs: touch.nowMs, expireTimeMs: touch.expireTimeMs };
    },
    remove(session: OwnedSession): void {
      byName.delete(nameOf(session));
    },
  };
}
