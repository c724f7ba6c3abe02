import type { AccountStore } from "./accounts/account-store.ts";
import { configuredBudgets } from "./accounts/budget-lookup.ts";
import { createMemoryAccountStore } from "./accounts/memory-account-store.ts";
import { createMemoryRateLimiter, createRedisRateLimiter, type RateLimiter } from "./accounts/rate-limit.ts";
import { createRedisAccountStore } from "./accounts/redis-account-store.ts";
import type { Config } from "./config.ts";
import type { ApiKeyStore } from "./identity/api-keys.ts";
import { createMemoryApiKeyStore } from "./identity/memory-api-key-store.ts";
import { createRedisApiKeyStore } from "./identity/redis-api-key-store.ts";
import type { Logger } from "./platform/logger-port.ts";
import { createMemoryStore } from "./store/memory-store.ts";
import { connectRedis, type RedisConnection } from "./store/redis-connection.ts";
import { createRedisStore } from "./store/redis-store.ts";
import type { Store } from "./turns/ports.ts";

/** What keeps state. */
export interface Stores {
  /** Whoever connected it closes it. */
  readonly store: Store;
  readonly rateLimiter: RateLimiter;
  readonly accounts: AccountStore;
  readonly apiKeys: ApiKeyStore;
  /** What they share; absent: the embedded ones. The store closes it. */
  readonly connection?: RedisConnection;
}

/** The stores that the configuration names: Redis, or else the embedded one. */
export function connectStores({
  config,
  logger,
  lazy = false,
}: {
  config: Config;
  logger: Logger;
  /** Whether Redis is connected to by the first use, and not at once. */
  lazy?: boolean;
}): Stores {
  const { redisUrl, redisDurability: durability, rateLimit, leaseMs, sessionTtlMs: ttlMs, writeSchema } = config;
  const budgets = configuredBudgets(config.budgets);
  if (redisUrl === undefined) {
    return {
      store: createMemoryStore({ ttlMs, leaseMs }),
      rateLimiter: createMemoryRateLimiter(rateLimit),
      accounts: createMemoryAccountStore({ budgets }),
      apiKeys: createMemoryApiKeyStore(),
    };
  }
  const connection = connectRedis(redisUrl, {
    lazy,
    durability,
    onError: (problem) => logger.warn({ problem }, "redis connection failed"),
    onWarning: (sentence) => logger.warn({}, sentence),
  });
  return {
    connection,
    store: createRedisStore({ connection, ttlMs, leaseMs, writeSchema }),
    rateLimiter: createRedisRateLimiter({ ...rateLimit, connection }),
    accounts: createRedisAccountStore({ connection, budgets }),
    apiKeys: createRedisApiKeyStore(connection),
  };
}
