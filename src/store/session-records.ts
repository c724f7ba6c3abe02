import { create, type JsonObject } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type SessionRecord, SessionRecordSchema } from "../../gen/parley/storage/v1/session_record_pb.js";
import { Failure } from "../failure.ts";
import type { NewSession, NewTurn } from "../turns/ports.ts";
import { SCHEMA_VERSION } from "./stored-formats.ts";

/** A full queue is advised to be tried again after this long, in milliseconds: about one short turn. */
export const QUEUE_FULL_RETRY_MS = 1_000;

/** The session has a running turn, and its caller does not want to wait. */
export function busyFailure(cursor: { readonly turnId: string; readonly lastSequence: bigint }): Failure {
  return new Failure("SESSION_BUSY", cursor.turnId === "" ? {} : { cursor });
}

/** The record of a session that begins. */
export function newSessionRecord(session: NewSession, createTimeMs: number): SessionRecord {
  return create(SessionRecordSchema, {
    schemaVersion: SCHEMA_VERSION,
    userId: session.userId,
    createTime: timestampFromMs(createTimeMs),
    version: session.version,
    ...optionalMetadata(session.metadata),
  });
}

/** The session that a turn makes; the turn's metadata become the session's. */
export function sessionOfTurn({ tenant, sessionId, userId, version, record }: NewTurn): NewSession {
  return { tenant, sessionId, userId, version, ...optionalMetadata(record.metadata) };
}

/** The record with other metadata, or with none. */
export function withMetadata(record: SessionRecord, metadata: JsonObject | undefined): SessionRecord {
  const { metadata: _, ...rest } = record;
  return create(SessionRecordSchema, { ...rest, ...optionalMetadata(metadata) });
}

function optionalMetadata(metadata: JsonObject | undefined): { metadata?: JsonObject } {
  return metadata === undefined ? {} : { metadata: structuredClone(metadata) };
}
