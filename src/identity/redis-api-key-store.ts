import { ApiKeyRecordSchema } from "../../gen/parley/storage/v1/api_key_record_pb.js";
import type { RedisConnection } from "../store/redis-connection.ts";
import { decodeRecord, encodeRecord } from "../store/stored-formats.ts";
import { API_KEY_SCRIPTS } from "./api-key-scripts.ts";
import type { ApiKeyStore } from "./api-keys.ts";

/** Hash of all tenants' keys: SHA-256 to ApiKeyRecord. An operator's key: no TTL. */
export const API_KEYS_KEY = "{keys}:api";

/** API keys in Redis, for all processes. */
export function createRedisApiKeyStore(connection: RedisConnection): ApiKeyStore {
  const run = connection.scripts(API_KEY_SCRIPTS);
  return {
    async add(keyHash, record) {
      await run("parleyAddApiKey", [API_KEYS_KEY], [keyHash, encodeRecord(ApiKeyRecordSchema, record)]);
    },
    async find(keyHash) {
      const bytes = await connection.use((client) => client.hgetBuffer(API_KEYS_KEY, keyHash));
      return bytes === null ? undefined : decodeRecord(ApiKeyRecordSchema, bytes);
    },
    async list() {
      const all = await connection.use((client) => client.hgetallBuffer(API_KEYS_KEY));
      return Object.entries(all).map(([keyHash, bytes]) => ({
        keyHash,
        record: decodeRecord(ApiKeyRecordSchema, bytes),
      }));
    },
    async remove(keyHash) {
      return Number(await run("parleyRemoveApiKey", [API_KEYS_KEY], [keyHash])) === 1;
    },
  };
}
