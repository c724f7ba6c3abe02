import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { StreamChatResponseSchema } from "../gen/parley/chat/v1/chat_service_pb.js";
import { TextDeltaSchema, TurnStartedSchema } from "../gen/parley/chat/v1/turn_event_pb.js";

/** The few fields of a StreamChatResponse that the load client needs; the rest is not decoded. */

const TEXT_DELTA = StreamChatResponseSchema.field.textDelta.number;
const TEXT = TextDeltaSchema.field.text.number;
const TURN_STARTED = StreamChatResponseSchema.field.turnStarted.number;
const TURN_ID = TurnStartedSchema.field.turnId.number;

/** The text of a response, if it is one of text. */
export function readTextDelta(message: Uint8Array): string | undefined {
  return readText(message, TEXT_DELTA, TEXT);
}

/** The turn's id, if the response is a turn's first. */
export function readTurnId(message: Uint8Array): string | undefined {
  return readText(message, TURN_STARTED, TURN_ID);
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

function readText(message: Uint8Array, outer: number, inner: number): string | undefined {
  const value = readField(message, outer);
  const text = value === undefined ? undefined : readField(value, inner);
  return text === undefined ? undefined : utf8.decode(text);
}

/** A length-delimited field. */
function readField(message: Uint8Array, wanted: number): Uint8Array | undefined {
  const reader = new BinaryReader(message);
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag();
    if (number === wanted && type === WireType.LengthDelimited) return reader.bytes();
    reader.skip(type, number);
  }
  return undefined;
}
