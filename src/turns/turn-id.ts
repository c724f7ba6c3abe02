import type { SessionRef, TurnRef } from "./ports.ts";

/**
 * Makes the id of a new turn. It carries its session, so that a turn is found by its id alone, and 96 random bits.
 * Clients must treat it as opaque.
 */
export function newTurnRef(session: SessionRef): TurnRef {
  const random = randomBytes();
  const turnId = `${toBase64Url(utf8.encode(`${session.tenant}/${session.sessionId}`))}.${toBase64Url(random)}`;
  return { tenant: session.tenant, sessionId: session.sessionId, turnId };
}

/** The turn that an id names; undefined: no turn can have this id. */
export function parseTurnId(turnId: string): TurnRef | undefined {
  const [tag, random, ...rest] = turnId.split(".");
  if (!tag || !random || rest.length > 0 || !/^[A-Za-z0-9_-]{16}$/.test(random) || !/^[A-Za-z0-9_-]+$/.test(tag))
    return undefined;
  const [tenant, sessionId, ...more] = fromBase64Url(tag).split("/");
  if (!tenant || !sessionId || more.length > 0 || !namePattern.test(tenant) || !namePattern.test(sessionId))
    return undefined;
  return { tenant, sessionId, turnId };
}

/** 96 random bits, drawn for many ids at once: a call to the system's generator each cost 1 % of a turn. */
const randomBytes = (() => {
  const pool = new Uint8Array(12 * 256);
  let at = pool.length;
  return (): Uint8Array => {
    if (at === pool.length) {
      crypto.getRandomValues(pool);
      at = 0;
    }
    at += 12;
    return pool.subarray(at - 12, at);
  };
})();

const namePattern = /^[A-Za-z0-9._-]{1,128}$/;
const utf8 = new TextEncoder();

function toBase64Url(bytes: Uint8Array): string {
  return bytes.toBase64({ alphabet: "base64url", omitPadding: true });
}

function fromBase64Url(text: string): string {
  try {
    return new TextDecoder().decode(Uint8Array.fromBase64(text, { alphabet: "base64url" }));
  } catch {
    return "";
  }
}
