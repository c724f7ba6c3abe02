import type { ApiKeyRecord } from "../../gen/parley/storage/v1/api_key_record_pb.js";
import type { ApiKeyStore } from "./api-keys.ts";

/** API keys in this process, for its life. */
export function createMemoryApiKeyStore(): ApiKeyStore {
  const records = new Map<string, ApiKeyRecord>();
  return {
    add: async (keyHash, record) => void records.set(keyHash, record),
    find: async (keyHash) => records.get(keyHash),
    list: async () => [...records].map(([keyHash, record]) => ({ keyHash, record })),
    remove: async (keyHash) => records.delete(keyHash),
  };
}
