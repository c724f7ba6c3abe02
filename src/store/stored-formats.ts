import { type DescMessage, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { Failure } from "../failure.ts";

/** Version of the stored formats that is this release's own: what it writes. */
export const SCHEMA_VERSION = 1;

/** The oldest version that this release can be told to write: the one before its own, as long as there is one. */
export const OLDEST_WRITABLE = Math.max(1, SCHEMA_VERSION - 1);

/**
 * The newest version that this release reads. The next one may add to a record and change nothing in it, so that a rollback
 * finds nothing that it cannot read; what this release does not know stays in the record when it is written again.
 */
export const NEWEST_READABLE = SCHEMA_VERSION + 1;

/** Can this release read what was written with a schema version? */
export function isReadable(version: number): boolean {
  return version >= 1 && version <= NEWEST_READABLE;
}

/** A stored record as bytes. */
export function encodeRecord<Desc extends DescMessage>(schema: Desc, record: MessageShape<Desc>): Buffer {
  const bytes = toBinary(schema, record);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * A stored record of any version from the first to the one after this release's. STORED_FORMAT_UNKNOWN: a still newer release
 * wrote it, or it is no record at all.
 */
export function decodeRecord<Desc extends DescMessage>(schema: Desc, bytes: Uint8Array): MessageShape<Desc> {
  const record = parse(schema, bytes);
  const version = "schemaVersion" in record ? Number(record.schemaVersion) : 0;
  if (!isReadable(version)) throw new Failure("STORED_FORMAT_UNKNOWN");
  return record;
}

function parse<Desc extends DescMessage>(schema: Desc, bytes: Uint8Array): MessageShape<Desc> {
  try {
    return fromBinary(schema, bytes);
  } catch {
    // No cause: a parser's error may quote what it read.
    throw new Failure("STORED_FORMAT_UNKNOWN");
  }
}
