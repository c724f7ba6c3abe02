import { expect, test, vi } from "vitest";
import { ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { ModelToolCall } from "../../src/engine/model.ts";
import type { TeamDefinition } from "../../src/engine/team.ts";
import type { Tool } from "../../src/engine/tool.ts";
import { ASSISTANT, asking, reply, run, TEAM } from "./scripted-turn.ts";

const NAMES = ["read", "write"] as const;
const agent = { ...ASSISTANT, tools: NAMES, approvals: ["write"] };
const team: TeamDefinition = { ...TEAM, agents: [agent] };

const read = { id: "r", name: "read", argumentsJson: "{}" };
const write = { id: "w", name: "write", argumentsJson: '{"text":"x"}' };

/** Runs a turn whose model asks for calls and then ends; says what was called and what came of it. */
async function turn(calls: readonly ModelToolCall[], options: Partial<Parameters<typeof run>[0]> = {}) {
  const made: string[] = [];
  const tools = NAMES.map(
    (name): Tool => ({
      name,
      description: "",
      parameters: { type: "object" },
      idempotent: false,
      call: vi.fn(async () => `${made.push(name)}`),
    }),
  );
  const { end, events, requests } = await run({ team, tools, script: [asking(...calls), reply("Done.")], ...options });
  const asked = events.flatMap((event) => (event.case === "approvalRequired" ? [event.value] : []));
  const completed = events.flatMap((event) =>
    event.case === "toolCallCompleted" ? [[event.value.tool, event.value.outcome, event.value.content]] : [],
  );
  return { end, made, asked, completed, requests };
}

test("a call that needs an approval is not made: the turn asks, and ends", async () => {
  const { end, made, asked, completed } = await turn([write]);
  expect(end).toEqual({ finishReason: FinishReason.INPUT_REQUIRED, questions: ["w-1"] });
  expect(asked).toEqual([{ agent: "assistant", toolCallId: "w-1", tool: "write", argumentsJson: '{"text":"x"}' }]);
  expect([made, completed]).toEqual([[], []]);
});

test("calls before it are made; it and those behind it wait, and all approvals are asked for at once", async () => {
  const { end, made, asked } = await turn([read, write, read, { ...write, id: "v" }]);
  expect(made).toEqual(["read"]);
  expect(asked.map(({ toolCallId }) => toolCallId)).toEqual(["w-2", "v-4"]);
  expect(end.questions).toEqual(["w-2", "v-4"]);
});

test("what is approved is made, in the model's order", async () => {
  const { end, made } = await turn([write, read], { answers: { "w-1": { approved: true, text: "" } } });
  expect(made).toEqual(["write", "read"]);
  expect(end.finishReason).toBe(FinishReason.STOP);
});

test("what is not approved is not made, and the model is told so", async () => {
  const { made, completed, requests } = await turn([write], {
    answers: { "w-1": { approved: false, text: "Not today." } },
  });
  expect(made).toEqual([]);
  const told = "The user did not approve the call. It was not made. The user said: Not today.";
  expect(completed).toEqual([["write", ToolOutcome.REFUSED, told]]);
  expect(requests[1]?.messages.at(-1)).toMatchObject({ role: "tool", content: told });
});

test("nobody is asked about a call that cannot be made", async () => {
  const { asked, made, completed } = await turn([
    { ...write, argumentsJson: "nonsense" },
    { ...write, name: "fly" },
  ]);
  expect([asked, made]).toEqual([[], []]);
  expect(completed.map(([, outcome]) => outcome)).toEqual([ToolOutcome.REFUSED, ToolOutcome.ERROR]);
});
