import { Failure } from "../failure.ts";
import { type ApiKeyStore, hashApiKey } from "./api-keys.ts";
import { type Authenticator, bearerOf } from "./authenticator.ts";
import { type Principal, principalOf } from "./principal.ts";

/** A key that was revoked is refused by every process after this long at most, in milliseconds. */
export const API_KEY_CACHE_MS = 5_000;

/** Keys in use at a time that one process remembers. */
const CACHED_KEYS = 10_000;

/**
 * AUTH_MODE=api_key. Keys that are known are remembered for a few seconds; unknown ones are looked up each time, so that a
 * new key is good at once.
 */
export function createApiKeyAuthenticator({
  keys,
  now = () => performance.now(),
}: {
  keys: Pick<ApiKeyStore, "find">;
  /** A clock in milliseconds that never steps back; for tests. */
  now?: () => number;
}): Authenticator {
  // In the order in which they were looked up, and so in the order in which they go stale.
  const known = new Map<string, { principal: Promise<Principal>; staleMs: number }>();

  const lookUp = async (keyHash: string): Promise<Principal> => {
    const record = await keys.find(keyHash);
    if (record === undefined) throw new Failure("CREDENTIALS_INVALID");
    const principal = principalOf(record);
    if (typeof principal === "string") throw new Failure("CREDENTIALS_INVALID", {}, { cause: new Error(principal) });
    return principal;
  };

  return async (headers) => {
    const keyHash = await hashApiKey(bearerOf(headers));
    const nowMs = now();
    const found = known.get(keyHash);
    if (found !== undefined && found.staleMs > nowMs) return found.principal;
    for (const [hash, { staleMs }] of known) {
      if (staleMs > nowMs && known.size < CACHED_KEYS) break;
      known.delete(hash);
    }
    const principal = lookUp(keyHash);
    const entry = { principal, staleMs: nowMs + API_KEY_CACHE_MS };
    known.delete(keyHash);
    known.set(keyHash, entry);
    try {
      return await principal;
    } catch (error) {
      if (known.get(keyHash) === entry) known.delete(keyHash);
      throw error;
    }
  };
}
