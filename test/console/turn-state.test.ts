import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import type { TurnEvent } from "../../client/client.ts";
import { StreamChatResponseSchema } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { afterEvent, newTurn, questionsOf, textOf } from "../../web/src/turn-state.ts";

// What a turn looks like after its events, without a browser.

type Init = NonNullable<NonNullable<Parameters<typeof create<typeof StreamChatResponseSchema>>[1]>["event"]>;

function textsAfter(events: readonly Init[]): string[] {
  return turnAfter(events).steps.map((step) => (step.kind === "reply" ? textOf(step) : step.kind));
}

const says = (text: string, agent = "a"): Init => ({ case: "textDelta", value: { agent, text } });
const completes = (content: string, agent = "a"): Init => ({ case: "messageCompleted", value: { agent, content } });
const restarts = (after: number): Init => ({
  case: "stepRestarted",
  value: { discardTextAfterSequence: BigInt(after) },
});

function turnAfter(events: readonly Init[]) {
  const responses = events.map(
    (event, at): TurnEvent => create(StreamChatResponseSchema, { sequence: BigInt(at + 1), event }),
  );
  return responses.reduce(afterEvent, newTurn({ key: "k", question: "q" }));
}

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

test("what each agent used adds up to the turn, call by call", () => {
  const used = (agent: string, totalTokens: number, cost: bigint): Init => ({
    case: "usageRecorded",
    value: { agent, tokenUsage: { totalTokens }, costMicroUsd: cost },
  });
  const turn = turnAfter([used("a", 5, 50n), used("b", 7, 70n), used("a", 1, 10n)]);
  expect(
    turn.spending.map(({ agent, calls, totalTokens, costMicroUsd }) => [agent, calls, totalTokens, costMicroUsd]),
  ).toEqual([
    ["a", 2, 6, 60n],
    ["b", 1, 7, 70n],
  ]);
  expect(turn.usage).toMatchObject({ totalTokens: 13, costMicroUsd: 130n });
});

test("who hands over, is picked or is stopped is told in words", () => {
  const turn = turnAfter([
    { case: "speakerSelected", value: { agent: "a" } },
    { case: "handoff", value: { fromAgent: "a", toAgent: "b" } },
    { case: "agentStopped", value: { agent: "b" } },
  ]);
  expect(turn.steps).toEqual([
    { kind: "note", text: "a speaks next." },
    { kind: "note", text: "a hands over to b." },
    { kind: "note", text: "b has used up its tokens." },
  ]);
});

test("a team waits for what it asked until the turn's end says otherwise", () => {
  const asks: Init = { case: "approvalRequired", value: { agent: "a", toolCallId: "c1", tool: "t" } };
  const ends = (finishReason: FinishReason): Init => ({ case: "turnCompleted", value: { finishReason } });
  const asked = (events: readonly Init[]) => questionsOf({ ...turnAfter(events), phase: "ended" }).approvals.length;
  expect([asked([asks, ends(FinishReason.INPUT_REQUIRED)]), asked([asks, ends(FinishReason.CANCELLED)])]).toEqual([
    1, 0,
  ]);
});
