import type { DescField, DescMessage, DescMethod } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel as Level } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import {
  ChatRequestSchema,
  ChatService,
  PreviewChatRequestSchema,
  ResumeTurnResponseSchema,
  StreamChatRequestSchema,
  StreamChatResponseSchema,
} from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { UsageService } from "../../gen/parley/usage/v1/usage_service_pb.js";

// What clients count on beyond what the compiler and buf can hold.

/** Name, number, type and oneof of each field. */
function fieldsOf(message: DescMessage) {
  return message.fields.map((field) => [field.name, field.number, typeOf(field), field.oneof?.name]);
}

function typeOf(field: DescField): string {
  const type = field.message?.typeName ?? field.enum?.typeName ?? String(field.scalar);
  return `${field.fieldKind} ${type}`;
}

test("a turn's events are the same whether streamed or resumed", () => {
  expect(fieldsOf(ResumeTurnResponseSchema)).toEqual(fieldsOf(StreamChatResponseSchema));
  expect(StreamChatResponseSchema.fields.length).toBeGreaterThan(15);
});

test("Chat, StreamChat and PreviewChat ask with the same fields", () => {
  expect(fieldsOf(StreamChatRequestSchema)).toEqual(fieldsOf(ChatRequestSchema));
  expect(fieldsOf(PreviewChatRequestSchema)).toEqual(fieldsOf(ChatRequestSchema));
  expect(ChatRequestSchema.fields).toHaveLength(11);
});

test.each<[string, readonly DescMethod[], Level]>([
  [
    "reads, which Connect may send as GET",
    [
      ChatService.method.getTurn,
      ChatService.method.resumeTurn,
      SessionService.method.getSession,
      SessionService.method.listSessions,
      SessionService.method.listMessages,
      UsageService.method.queryUsage,
      UsageService.method.exportUsage,
      UsageService.method.listBudgets,
      UsageService.method.listPrices,
    ],
    Level.NO_SIDE_EFFECTS,
  ],
  [
    "deletes and updates",
    [
      SessionService.method.deleteSession,
      SessionService.method.updateSession,
      ChatService.method.cancelTurn,
      UsageService.method.setBudget,
    ],
    Level.IDEMPOTENT,
  ],
  [
    "all others, PreviewChat among them",
    [
      ChatService.method.chat,
      ChatService.method.streamChat,
      ChatService.method.previewChat,
      SessionService.method.createSession,
      UsageService.method.repriceUsage,
    ],
    Level.IDEMPOTENCY_UNKNOWN,
  ],
])("idempotency of %s", (_, methods, level) => {
  const services = [ChatService, SessionService, UsageService];
  const all: DescMethod[] = services.flatMap((service): readonly DescMethod[] => service.methods);
  const names = all.filter(({ idempotency }) => idempotency === level).map(({ name }) => name);
  expect(names.sort()).toEqual(methods.map(({ name }) => name).sort());
});
