import { ACCOUNT_SCRIPTS } from "./account-scripts.ts";
import { SESSION_SCRIPTS } from "./session-scripts.ts";
import { TURN_SCRIPTS } from "./turn-scripts.ts";

/**
 * All scripts, by name, as the client's commands are called. Each runs on keys of one slot (`redis-keys.ts`), takes its time
 * from Redis, and may be repeated: where an answer is lost, the second run changes nothing and answers the same. Times are
 * milliseconds since the epoch.
 *
 * A session's scripts also write keys that they name themselves, `<prefix><turn id>`, which are in the slot of their
 * KEYS by the prefix's tag.
 */
export const REDIS_SCRIPTS = { ...ACCOUNT_SCRIPTS, ...SESSION_SCRIPTS, ...TURN_SCRIPTS } as const satisfies Record<
  string,
  { readonly numberOfKeys: number; readonly lua: string; readonly readOnly?: true }
>;

export type RedisScriptName = keyof typeof REDIS_SCRIPTS;
