import { create } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { type ApiKeyRecord, ApiKeyRecordSchema } from "../../gen/parley/storage/v1/api_key_record_pb.js";
import { type Claims, principalOf } from "./principal.ts";

/** Where API keys are kept, by hash. Any operation may reject with STORE_UNAVAILABLE. */
export interface ApiKeyStore {
  add(keyHash: string, record: ApiKeyRecord): Promise<void>;
  /** Undefined: no such key, or revoked. */
  find(keyHash: string): Promise<ApiKeyRecord | undefined>;
  /** All keys, in no order. */
  list(): Promise<StoredApiKey[]>;
  /** False: there was none. */
  remove(keyHash: string): Promise<boolean>;
}

export interface StoredApiKey {
  readonly keyHash: string;
  readonly record: ApiKeyRecord;
}

/** Begins every key, so that scanners for leaked secrets can know one. */
const KEY_PREFIX = "parley_";
const KEY_BYTES = 32;

/** Version of the stored key format that this release writes. */
const API_KEY_SCHEMA_VERSION = 1;

/** Makes a key. It is in this result and nowhere else. Throws a sentence when the claims make no principal. */
export async function makeApiKey(
  store: Pick<ApiKeyStore, "add">,
  { note, ...claims }: Claims & { readonly note: string },
): Promise<{ key: string; id: string }> {
  const principal = principalOf(claims);
  if (typeof principal === "string") throw new Error(`No such key can be made: ${principal}.`);
  const random = crypto.getRandomValues(new Uint8Array(KEY_BYTES));
  const key = `${KEY_PREFIX}${random.toBase64({ alphabet: "base64url", omitPadding: true })}`;
  const keyHash = await hashApiKey(key);
  const { tenant, team, userId, useCases, roles } = claims;
  await store.add(
    keyHash,
    create(ApiKeyRecordSchema, {
      schemaVersion: API_KEY_SCHEMA_VERSION,
      tenant,
      team,
      userId,
      useCases: [...useCases],
      roles: [...roles],
      note,
      createTime: timestampNow(),
    }),
  );
  return { key, id: apiKeyId(keyHash) };
}

/** Revokes the key with an id. False: there is none. */
export async function revokeApiKey(store: Pick<ApiKeyStore, "list" | "remove">, id: string): Promise<boolean> {
  const found = (await store.list()).find(({ keyHash }) => apiKeyId(keyHash) === id);
  return found !== undefined && store.remove(found.keyHash);
}

/** What people call a key by: it tells nothing of the key. */
export function apiKeyId(keyHash: string): string {
  return keyHash.slice(0, 16);
}

/**
 * What a key is stored and found by: SHA-256, in hex. A slow hash protects secrets that can be guessed; nobody guesses 256
 * random bits, and a fast one costs calls nothing. Looking a hash up tells no attacker how near a guess was.
 */
export async function hashApiKey(key: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(key));
  return new Uint8Array(digest).toHex();
}
