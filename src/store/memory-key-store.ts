import { KEY_TTL_MS, type KeyClaim, type KeyState, type KeyStore } from "../turns/ports.ts";

/** The part of the embedded store that remembers idempotency keys. */
export function createMemoryKeyStore(now: () => number): KeyStore {
  // All keys are remembered equally long, so the map's order is the order in which they are forgotten.
  const claims = new Map<string, { turnId: string; requestHash: string; state: KeyState; untilMs: number }>();
  const sweep = (): void => {
    const nowMs = now();
    for (const [name, claim] of claims) {
      if (claim.untilMs > nowMs) return;
      claims.delete(name);
    }
  };
  return {
    async claimKey(claim) {
      sweep();
      const { turnId, requestHash } = claim;
      const found = claims.get(nameOf(claim));
      if (found === undefined) {
        claims.set(nameOf(claim), { turnId, requestHash, state: "claimed", untilMs: now() + KEY_TTL_MS });
        return { turnId, requestHash, state: "new" };
      }
      return { turnId: found.turnId, requestHash: found.requestHash, state: found.state };
    },
    async markKey(claim, state) {
      const found = claims.get(nameOf(claim));
      if (found?.turnId === claim.turnId && found.state !== "begun") found.state = state;
    },
    async releaseKey(claim) {
      const found = claims.get(nameOf(claim));
      if (found?.turnId === claim.turnId && found.state !== "begun") claims.delete(nameOf(claim));
    },
  };
}

function nameOf({ tenant, userId, key }: KeyClaim): string {
  return `${tenant}\0${userId}\0${key}`;
}
