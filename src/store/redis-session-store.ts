import type { Session } from "../../gen/parley/chat/v1/session_pb.js";
import { MessageRecordSchema } from "../../gen/parley/storage/v1/message_record_pb.js";
import { SessionRecordSchema } from "../../gen/parley/storage/v1/session_record_pb.js";
import { Failure } from "../failure.ts";
import { NO_USAGE, type SessionPosition, type SessionRef, type SessionStore } from "../turns/ports.ts";
import type { AccountIndex, OwnedSession, Touch } from "./account-index.ts";
import { sessionView } from "./record-views.ts";
import type { RedisConnection } from "./redis-connection.ts";
import { type SessionKeys, sessionKeys } from "./redis-keys.ts";
import { newSessionRecord, withMetadata } from "./session-records.ts";
import { SESSION_FIELDS } from "./session-scripts.ts";
import { decodeRecord, encodeRecord } from "./stored-formats.ts";

/** The half of the Redis store that keeps sessions. */
export function createRedisSessionStore({
  connection,
  index,
  ttlMs,
}: {
  connection: RedisConnection;
  index: AccountIndex;
  ttlMs: number;
}): SessionStore {
  const read = (ref: SessionRef): Promise<StoredFields> =>
    connection.use((client) => client.hmgetBuffer(sessionKeys(ref).session, ...SESSION_FIELDS));

  return {
    async createSession(session) {
      const keys = sessionKeys(session);
      const touch = await index.touchNew(session);
      const record = newSessionRecord(session, touch.nowMs);
      const [outcome, owner] = (await connection.run("parleyCreateSession", wholeSession(keys), [
        keys.turnPrefix,
        keys.logPrefix,
        encodeRecord(SessionRecordSchema, record),
        session.userId,
        touch.nowMs,
        touch.expireTimeMs,
        session.version,
      ])) as [number, Buffer?];
      if (outcome === 1) {
        return sessionView(session, {
          record,
          messageCount: 0,
          usage: NO_USAGE,
          updateTimeMs: touch.nowMs,
          expireTimeMs: touch.expireTimeMs,
        });
      }
      // An index that has lost this session has just got it back.
      if (String(owner) !== session.userId || touch.before !== "") await index.untouch(touch);
      throw outcome === 0 ? new Failure("SESSION_EXISTS") : lateFailure();
    },

    async getSession(ref) {
      return viewOf(ref, await read(ref));
    },

    async listSessions({ tenant, userId, limit, after }) {
      const found: Session[] = [];
      let last: SessionPosition | undefined = after;
      while (found.length < limit) {
        const wanted = limit - found.length;
        const places = await index.list({ tenant, userId, limit: wanted, ...(last && { after: last }) });
        const sessions = await Promise.all(
          places.map(async ({ sessionId }) => viewOf({ tenant, sessionId }, await read({ tenant, sessionId }))),
        );
        found.push(
          ...sessions.filter((session) => session?.userId === userId).filter((session) => session !== undefined),
        );
        if (places.length < wanted) break;
        last = places.at(-1);
      }
      return found;
    },

    async updateSession(ref, metadata) {
      const stored = await read(ref);
      const fields = fieldsOf(stored);
      if (fields === undefined) return undefined;
      const record = withMetadata(decodeRecord(SessionRecordSchema, fields.record), metadata);
      const touch = await touchStored(index, { ...ref, userId: fields.owner }, fields.created);
      const keys = sessionKeys(ref);
      const updated = await connection.run("parleyUpdateSession", wholeSession(keys), [
        keys.turnPrefix,
        keys.logPrefix,
        touch.expireTimeMs,
        ttlMs,
        encodeRecord(SessionRecordSchema, record),
        fields.created,
      ]);
      if (updated === null) {
        await index.forget(touch.session, touch.expireTimeMs);
        return undefined;
      }
      return viewOf(ref, updated as StoredFields);
    },

    async deleteSession(ref) {
      const keys = sessionKeys(ref);
      const gone = await connection.run("parleyDeleteSession", wholeSession(keys), [keys.turnPrefix, keys.logPrefix]);
      if (gone === null) return false;
      const [owner, expire] = gone as [Buffer, Buffer];
      await index.forget({ ...ref, userId: String(owner) }, Number(String(expire)));
      return true;
    },

    async listMessages(ref, { offset, limit }) {
      const keys = sessionKeys(ref);
      const page = await connection.run("parleyListMessages", [keys.session, keys.messages], [offset, limit]);
      if (page === null) return undefined;
      return (page as Buffer[]).flatMap((bytes) => {
        const { message } = decodeRecord(MessageRecordSchema, bytes);
        return message === undefined ? [] : [message];
      });
    },

    async readWindow(ref, messages) {
      const keys = sessionKeys(ref);
      const window = await connection.run("parleyReadWindow", [keys.session, keys.messages], [messages]);
      return window === null
        ? undefined
        : (window as Buffer[]).map((bytes) => decodeRecord(MessageRecordSchema, bytes));
    },

    countActiveSessions: () => index.count(),
  };
}

/** The keys that scripts on a whole session take. */
export function wholeSession(keys: SessionKeys): string[] {
  return [keys.session, keys.messages, keys.turns, keys.queue, keys.tickets];
}

/** Tells the account that a stored session is used, even where the account has lost it. */
export async function touchStored(index: AccountIndex, session: OwnedSession, createTimeMs: number): Promise<Touch> {
  return (await index.touch(session)) ?? (await index.touchNew(session, { createTimeMs }));
}

/** The end of life that was asked for was over before it arrived: this process or Redis stood still for a whole ttl. */
export function lateFailure(): Failure {
  return new Failure("STORE_UNAVAILABLE", { retryAfterMs: 1_000 }, { cause: new Error("the session's life was over") });
}

/** Values of SESSION_FIELDS, in their order. */
type StoredFields = readonly (Buffer | null)[];

interface SessionFields {
  readonly record: Buffer;
  readonly owner: string;
  readonly created: number;
  readonly updated: number;
  readonly expire: number;
  readonly messages: number;
  readonly prompt: number;
  readonly completion: number;
  readonly cost: bigint;
}

/** Undefined: no such session. */
function fieldsOf(values: StoredFields): SessionFields | undefined {
  const [record, owner, ...rest] = values;
  if (!record || !owner) return undefined;
  const [created, updated, expire, messages, prompt, completion, cost] = rest.map(String);
  return {
    record,
    owner: String(owner),
    created: Number(created),
    updated: Number(updated),
    expire: Number(expire),
    messages: Number(messages),
    prompt: Number(prompt),
    completion: Number(completion),
    cost: BigInt(cost ?? 0),
  };
}

function viewOf(ref: SessionRef, values: StoredFields): Session | undefined {
  const fields = fieldsOf(values);
  if (fields === undefined) return undefined;
  return sessionView(ref, {
    record: decodeRecord(SessionRecordSchema, fields.record),
    messageCount: fields.messages,
    usage: { promptTokens: fields.prompt, completionTokens: fields.completion, costMicroUsd: fields.cost },
    updateTimeMs: fields.updated,
    expireTimeMs: fields.expire,
  });
}
