import type { RedisScript } from "../store/redis-connection.ts";

/** Scripts of API keys: as scripts their writes are as durable as all others. By name, as the client's commands are called. */
export const API_KEY_SCRIPTS = {
  /** KEYS: keys. ARGV: hash, ApiKeyRecord. */
  parleyAddApiKey: {
    numberOfKeys: 1,
    lua: `redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])`,
  },
  /** KEYS: keys. ARGV: hash. Result: 1, or 0: there was none. */
  parleyRemoveApiKey: {
    numberOfKeys: 1,
    lua: `return redis.call('HDEL', KEYS[1], ARGV[1])`,
  },
} as const satisfies Readonly<Record<string, RedisScript>>;
