import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import type { TurnEvent } from "../../client/client.ts";
import { StreamChatResponseSchema } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { afterEvent, newTurn, textOf } from "../../web/src/turn-state.ts";

// What a turn looks like after its events, without a browser.

type Init = NonNullable<NonNullable<Parameters<typeof create<typeof StreamChatResponseSchema>>[1]>["event"]>;

function textsAfter(events: readonly Init[]): string[] {
  const responses = events.map(
    (event, at): TurnEvent => create(StreamChatResponseSchema, { sequence: BigInt(at + 1), event }),
  );
  const turn = responses.reduce(afterEvent, newTurn({ key: "k", question: "q" }));
  return turn.steps.map((step) => (step.kind === "reply" ? textOf(step) : step.kind));
}

const says = (text: string, agent = "a"): Init => ({ case: "textDelta", value: { agent, text } });
const completes = (content: string, agent = "a"): Init => ({ case: "messageCompleted", value: { agent, content } });
const restarts = (after: number): Init => ({
  case: "stepRestarted",
  value: { discardTextAfterSequence: BigInt(after) },
});

test("a step that is restarted takes back the text that came after its sequence", () => {
  expect(textsAfter([says("one "), says("two "), restarts(1), says("three")])).toEqual(["one three"]);
});

test("a step whose text is all void leaves nothing of it", () => {
  expect(textsAfter([says("one "), says("two "), restarts(0)])).toEqual([]);
});

test("completed messages and tool calls stand", () => {
  const call = { agent: "a", toolCallId: "c1", tool: "t" };
  expect(
    textsAfter([
      says("one"),
      completes("one"),
      { case: "toolCallStarted", value: call },
      { case: "toolCallCompleted", value: call },
      says("cut"),
      restarts(0),
      says("whole", "b"),
    ]),
  ).toEqual(["one", "tool", "whole"]);
});
