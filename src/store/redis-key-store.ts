import { KEY_TTL_MS, type KeyClaim, type KeyState, type KeyStore } from "../turns/ports.ts";
import { digestOf } from "./digest.ts";
import type { RedisConnection } from "./redis-connection.ts";
import { accountKeys } from "./redis-keys.ts";

/** The part of the Redis store that remembers idempotency keys, in the account's slot. */
export function createRedisKeyStore(connection: RedisConnection): KeyStore {
  return {
    async claimKey(claim) {
      const args = [claim.requestHash, claim.turnId, KEY_TTL_MS];
      const reply = (await connection.run("parleyClaimKey", [await nameOf(claim)], args)) as Buffer[];
      const [turnId = "", requestHash = "", state = ""] = reply.map(String);
      return { turnId, requestHash, state: state as KeyState };
    },
    async markKey(claim, state) {
      await connection.run("parleyMarkKey", [await nameOf(claim)], [claim.turnId, state]);
    },
    async releaseKey(claim) {
      await connection.run("parleyReleaseKey", [await nameOf(claim)], [claim.turnId]);
    },
  };
}

async function nameOf({ tenant, userId, key }: KeyClaim): Promise<string> {
  return `${accountKeys(tenant).idempotencyPrefix}${await digestOf(`${userId}\0${key}`)}`;
}
