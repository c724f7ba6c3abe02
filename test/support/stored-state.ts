import { toJson } from "@bufbuild/protobuf";
import { MessageSchema } from "../../gen/parley/chat/v1/message_pb.js";
import { SessionSchema } from "../../gen/parley/chat/v1/session_pb.js";
import { TurnSchema } from "../../gen/parley/chat/v1/turn_pb.js";
import { TurnLogEntrySchema } from "../../gen/parley/storage/v1/turn_log_pb.js";
import { connectRedis } from "../../src/store/redis-connection.ts";
import { createRedisStore } from "../../src/store/redis-store.ts";
import { parseTurnId } from "../../src/turns/turn-id.ts";

/** What a release left in Redis, and what it read from it. */
export interface StoredState {
  /** Key by key, as DUMP gives it, in base64. */
  readonly keys: Readonly<Record<string, string>>;
  readonly sessionId: string;
  readonly seen: SeenState;
}

/** A session's state as the store's readers see it, in JSON; without its end of life, which depends on the day. */
export interface SeenState {
  readonly session: unknown;
  readonly messages: unknown;
  readonly turns: unknown;
  readonly logs: unknown;
}

/** Reads a session of the tenant `default`, with all turns that its history names. */
export async function readState(redisUrl: string, sessionId: string): Promise<SeenState> {
  const store = createRedisStore({ connection: connectRedis(redisUrl), ttlMs: 3_600_000, leaseMs: 10_000 });
  try {
    const ref = { tenant: "default", sessionId };
    const session = await store.getSession(ref);
    const messages = (await store.listMessages(ref, { offset: 0, limit: 100 })) ?? [];
    const turns = [...new Set(messages.map((message) => message.turnId))].flatMap((id) => parseTurnId(id) ?? []);
    const records = await Promise.all(turns.map((turn) => store.getTurn(turn)));
    const logs = await Promise.all(turns.map((turn) => store.readLog(turn, 0n, 1_000)));
    const { expireTime: _, ...view } =
      session === undefined ? {} : (toJson(SessionSchema, session) as { expireTime?: string });
    return {
      session: view,
      messages: messages.map((message) => toJson(MessageSchema, message)),
      turns: records.map((turn) => (turn === undefined ? null : toJson(TurnSchema, turn))),
      logs: logs.map((log) => (log ?? []).map((entry) => toJson(TurnLogEntrySchema, entry))),
    };
  } finally {
    await store.close();
  }
}
