import { RateLimiterMemory, RateLimiterRedis } from "rate-limiter-flexible";
import { Failure } from "../failure.ts";
import {
  failureOfRedisError,
  type RedisConnection,
  type RedisScript,
  type RunScript,
} from "../store/redis-connection.ts";
import { accountKeys } from "../store/redis-keys.ts";

/** Limits how often each user of each tenant may ask for a turn. */
export interface RateLimiter {
  /**
   * Counts one turn. RATE_LIMITED: the user's turns of the running window are used up; it says when the window ends and
   * names the caller only. STORE_UNAVAILABLE: nobody can tell.
   */
  consume(tenant: string, userId: string): Promise<RateState>;
  /** The refusal that `consume` would come with now, and counts nothing; undefined: it would count. */
  peek(tenant: string, userId: string): Promise<Failure | undefined>;
}

/** How much of a user's window is used. */
export interface RateState {
  /** Turns in a window. */
  readonly limit: number;
  /** Turns that are left in it. */
  readonly remaining: number;
  /** Until it ends, in milliseconds. */
  readonly resetMs: number;
}

/** A user's window begins with its first turn. */
export interface RateLimit {
  /** Turns in a window; at least 1. */
  readonly limit: number;
  /** Length of a window in seconds. */
  readonly windowSeconds: number;
}

/** Counts in this process. */
export function createMemoryRateLimiter(rate: RateLimit): RateLimiter {
  const limiter = new RateLimiterMemory({ points: rate.limit, duration: rate.windowSeconds, keyPrefix: "" });
  return rateLimiter(rate, { limiter, keyOf: (tenant, userId) => `${tenant}/${userId}` });
}

/** Counts for all processes, in `{a:<tenant>}:rate:<user>`; the key is gone when its window ends. */
export function createRedisRateLimiter({
  connection,
  ...rate
}: RateLimit & { connection: RedisConnection }): RateLimiter {
  let run: RunScript | undefined;
  const limiter = new RateLimiterRedis({
    // All that the library needs of a client to consume, its one script, and to look.
    storeClient: {
      defineCommand: (name: string, script: RedisScript) => {
        run = connection.script(name, script);
      },
      rlflxIncr: (args: string[]) => run?.(args),
      multi: () => connection.client.multi(),
    },
    points: rate.limit,
    duration: rate.windowSeconds,
    keyPrefix: "",
  });
  return rateLimiter(rate, { limiter, keyOf: (tenant, userId) => `${accountKeys(tenant).ratePrefix}${userId}` });
}

function rateLimiter(
  { limit, windowSeconds }: RateLimit,
  { limiter, keyOf }: { limiter: RateLimiterMemory | RateLimiterRedis; keyOf(tenant: string, userId: string): string },
): RateLimiter {
  const refused = (userId: string, retryAfterMs: number): Failure =>
    new Failure("RATE_LIMITED", {
      retryAfterMs,
      quotas: [{ subject: `user:${userId}`, description: `${limit} turns per ${windowSeconds} seconds` }],
    });
  return {
    async consume(tenant, userId) {
      try {
        const { remainingPoints, msBeforeNext } = await limiter.consume(keyOf(tenant, userId));
        return { limit, remaining: remainingPoints, resetMs: msBeforeNext };
      } catch (refusal) {
        const retryAfterMs = retryAfterMsOf(refusal);
        throw retryAfterMs === undefined ? failureOfRedisError(refusal) : refused(userId, retryAfterMs);
      }
    },
    async peek(tenant, userId) {
      try {
        const used = await limiter.get(keyOf(tenant, userId));
        if (used === null || used.consumedPoints < limit) return undefined;
        return refused(userId, Math.max(1, used.msBeforeNext));
      } catch (error) {
        throw failureOfRedisError(error);
      }
    },
  };
}

/** The library refuses with an object that is no Error; anything else went wrong. */
function retryAfterMsOf(refusal: unknown): number | undefined {
  if (refusal instanceof Error || typeof refusal !== "object" || refusal === null) return undefined;
  return "msBeforeNext" in refusal && typeof refusal.msBeforeNext === "number"
    ? Math.max(1, refusal.msBeforeNext)
    : undefined;
}
