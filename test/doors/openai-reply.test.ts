import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { type StreamChatResponse, StreamChatResponseSchema } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { completedReply, streamedReply, TextUnsaid } from "../../src/rpc/openai-reply.ts";

// The one text of a completion, made of a turn's events, restarted steps included.

type Event = StreamChatResponse["event"];
const event = (given: object): Event => create(StreamChatResponseSchema, { event: given as never }).event;
const delta = (text: string) => event({ case: "textDelta", value: { agent: "a", text } });
const message = (content: string) => event({ case: "messageCompleted", value: { agent: "a", content } });
const restarted = event({ case: "stepRestarted", value: { discardTextAfterSequence: 1n } });
const completed = event({ case: "turnCompleted", value: {} });

const textOf = (reply: { add(event: Event): string }, events: readonly Event[]) =>
  events.map((one) => reply.add(one)).join("");

test("text of one message comes as it is said", () => {
  const events = [delta("a "), delta("b"), message("a b"), completed];
  expect(events.map((one) => streamedReply().add(one))).toEqual(["a ", "b", "", ""]);
  expect(textOf(completedReply(), events)).toBe("a b");
});

test("messages stand apart, empty ones leave nothing, and both ways say the same", () => {
  const events = [delta("a"), message("a"), message(""), delta("b"), message("b"), completed];
  expect(textOf(streamedReply(), events)).toBe("a\n\nb");
  expect(textOf(completedReply(), events)).toBe("a\n\nb");
});

test("a message that is said again in the same words is not said twice", () => {
  const events = [
    delta("first"),
    message("first"),
    delta("one two"),
    restarted,
    delta("one"),
    restarted,
    delta("one "),
    delta("two three"),
    message("one two three"),
    completed,
  ];
  expect(textOf(streamedReply(), events)).toBe("first\n\none two three");
  expect(textOf(completedReply(), events)).toBe("first\n\none two three");
});

test.each([
  ["in other words", [delta("one two"), restarted, delta("one nine")]],
  ["and ends sooner", [delta("one two"), restarted, delta("one"), message("one")]],
  ["and is not said at all", [delta("one two"), restarted, completed]],
])("a message that is said again %s cannot be unsaid", (_, events) => {
  expect(() => textOf(streamedReply(), events)).toThrow(TextUnsaid);
});

test("a step that is restarted before it said anything is nobody's business", () => {
  expect(textOf(streamedReply(), [restarted, delta("a"), message("a"), completed])).toBe("a");
});
