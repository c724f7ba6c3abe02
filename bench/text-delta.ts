import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { StreamChatResponseSchema } from "../gen/parley/chat/v1/chat_service_pb.js";
import { TextDeltaSchema } from "../gen/parley/chat/v1/turn_event_pb.js";

const TEXT_DELTA = StreamChatResponseSchema.field.textDelta.number;
const TEXT = TextDeltaSchema.field.text.number;

/** The text of a StreamChatResponse, if it is one of text; the rest is not decoded: the load client needs no more. */
export function readTextDelta(message: Uint8Array): string | undefined {
  const delta = readField(message, TEXT_DELTA);
  const text = delta === undefined ? undefined : readField(delta, TEXT);
  return text === undefined ? undefined : utf8.decode(text);
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

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
