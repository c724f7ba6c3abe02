import type { Store } from "../turns/ports.ts";
import { createAccountIndex } from "./account-index.ts";
import type { RedisConnection } from "./redis-connection.ts";
import { createRedisKeyStore } from "./redis-key-store.ts";
import { createRedisSessionStore } from "./redis-session-store.ts";
import { createRedisTurnStore } from "./redis-turn-store.ts";
import { SCHEMA_VERSION } from "./stored-formats.ts";
import { noteWrittenSchema } from "./written-schema.ts";

export interface RedisStoreOptions {
  /** The store closes it. */
  readonly connection: RedisConnection;
  /** A session is gone this long after its last use, in milliseconds. */
  readonly ttlMs: number;
  /** A lease that nobody renews is kept this long, in milliseconds. */
  readonly leaseMs: number;
  /** Version of the stored formats that is written. Default: this release's own. */
  readonly writeSchema?: number;
}

/**
 * The store on one Redis or a Redis Cluster, 7.0 or newer. Replicas of the service share it. A turn's begin is two round
 * trips (account, session), each append and the commit one.
 */
export function createRedisStore({
  connection,
  ttlMs,
  leaseMs,
  writeSchema = SCHEMA_VERSION,
}: RedisStoreOptions): Store {
  let isNoted = false;
  const index = createAccountIndex({ connection, ttlMs });
  const turns = createRedisTurnStore({ connection, index, ttlMs, leaseMs });
  return {
    ...createRedisSessionStore({ connection, index, ttlMs }),
    ...turns,
    ...createRedisKeyStore(connection),
    async ping() {
      await connection.ping();
      // Once: an upgrade asks what has been written.
      if (!isNoted) await noteWrittenSchema(connection, writeSchema);
      isNoted = true;
    },
    async close() {
      await turns.close();
      await connection.close();
    },
  };
}
