import type { Rollups } from "../../sidecar/rollups.ts";
import { createMemoryRollups } from "../../sidecar/rollups-memory.ts";
import { createRedisRollups } from "../../sidecar/rollups-redis.ts";
import type { AccountStore } from "../../src/accounts/account-store.ts";
import { createMemoryAccountStore } from "../../src/accounts/memory-account-store.ts";
import { createRedisAccountStore } from "../../src/accounts/redis-account-store.ts";
import type { RedisOfFile } from "../support/redis-of-file.ts";

/** Empty accounts with their rollups, by where they are: for `describe.each`. */
export function bothRollups(
  redis: RedisOfFile,
): [where: string, open: () => Promise<{ accounts: AccountStore; rollups: Rollups }>][] {
  return [
    [
      "in process",
      async () => {
        const accounts = createMemoryAccountStore();
        return { accounts, rollups: createMemoryRollups({ accounts }) };
      },
    ],
    [
      "on Redis",
      async () => {
        const { connection } = redis;
        await connection.use((client) => client.flushall());
        const accounts = createRedisAccountStore({ connection });
        return { accounts, rollups: createRedisRollups({ connection, accounts, consumer: crypto.randomUUID() }) };
      },
    ],
  ];
}
