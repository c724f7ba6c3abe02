import type { RedisConnection } from "./redis-connection.ts";
import { WRITTEN_SCHEMA_KEY } from "./redis-keys.ts";

/** Notes that records of a schema version are written; the newest stays noted for ever. */
export async function noteWrittenSchema(connection: RedisConnection, version: number): Promise<void> {
  await connection.use((client) => client.zadd(WRITTEN_SCHEMA_KEY, "GT", version, "newest"));
}

/** The newest schema version that any process has written; undefined: none has. */
export async function writtenSchema(connection: RedisConnection): Promise<number | undefined> {
  const version = await connection.use((client) => client.zscore(WRITTEN_SCHEMA_KEY, "newest"));
  return version === null ? undefined : Number(version);
}

/**
 * Why a release whose own schema version is `own` must not be rolled out over what has been written, as a sentence; undefined:
 * it may. A release reads the version after its own, and while both run the older one must be able to read the newer one's.
 */
export function schemaRefusal({ own, written }: { own: number; written: number | undefined }): string | undefined {
  if (written === undefined || Math.abs(own - written) <= 1) return undefined;
  const far = `This release's stored formats are version ${own}, and what is stored is version ${written}.`;
  return own > written
    ? `${far} Upgrade to the release of version ${written + 1} first, and raise state.writeSchema there.`
    : `${far} It cannot read them: go back no further than to the release of version ${written - 1}.`;
}
