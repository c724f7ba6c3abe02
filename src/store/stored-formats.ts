import { type DescMessage, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { Failure } from "../failure.ts";

/** Version of the stored formats that this release writes. */
export const SCHEMA_VERSION = 1;

/** A stored record as bytes. */
export function encodeRecord<Desc extends DescMessage>(schema: Desc, record: MessageShape<Desc>): Buffer {
  const bytes = toBinary(schema, record);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * A stored record of any version that this release knows. STORED_FORMAT_UNKNOWN: a newer release wrote it, or it is no
 * record at all.
 */
export function decodeRecord<Desc extends DescMessage>(schema: Desc, bytes: Uint8Array): MessageShape<Desc> {
  const record = parse(schema, bytes);
  if (!("schemaVersion" in record) || record.schemaVersion !== SCHEMA_VERSION)
    throw new Failure("STORED_FORMAT_UNKNOWN");
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
