import { ApiKeyRecordSchema } from "../../gen/parley/storage/v1/api_key_record_pb.js";
import type { RedisConnection } from "../store/redis-connection.ts";
import { decodeRecord, encodeRecord } from "../store/stored-formats.ts";
import type { ApiKeyStore } from "./api-keys.ts";

/** Hash of all tenants' keys: SHA-256 to ApiKeyRecord. An operator's key: no TTL. */
export const API_KEYS_KEY = "{keys}:api";

/** API keys in Redis, for all processes. */
export function createRedisApiKeyStore(connection: RedisConnection): ApiKeyStore {
  return {
    async add(keyHash, record) {
      const bytes = encodeRecord(ApiKeyRecordSchema, record);
      await connection.use((client) => client.hset(API_KEYS_KEY, keyHash, bytes));
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
      return (await connection.use((client) => client.hdel(API_KEYS_KEY, keyHash))) === 1;
    },
  };
}
