import { expect, test, vi } from "vitest";
import { ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { ModelToolCall } from "../../src/engine/model.ts";
import type { TeamDefinition } from "../../src/engine/team.ts";
import type { Tool, ToolCall } from "../../src/engine/tool.ts";
import { UNKNOWN_OUTCOME } from "../../src/engine/tool-call.ts";
import { Failure } from "../../src/failure.ts";
import { ASSISTANT, asking, reply, run, TEAM, USAGE } from "./scripted-turn.ts";

const CALL = { id: "c1", name: "look_up", argumentsJson: '{"query":"weather"}' } as const;

function tool(call: Tool["call"], name: string = CALL.name): Tool {
  return { name, description: `Does ${name}.`, parameters: { type: "object" }, idempotent: true, call };
}

const team: TeamDefinition = { ...TEAM, agents: [{ ...ASSISTANT, tools: [CALL.name] }] };

/** What the model is told of its first tool call, and what readers are. */
async function outcomeOf(
  call: Tool["call"],
  {
    request = CALL,
    allowed = team,
    maxTokens = 4_000,
  }: { request?: ModelToolCall; allowed?: TeamDefinition; maxTokens?: number } = {},
) {
  const turn = await run({
    team: allowed,
    maxTokens,
    tools: [tool(call), tool(call, "delete_all")],
    script: [asking(request), reply("Done.")],
  });
  const told = turn.requests[1]?.messages.at(-1) ?? expect.fail("the model is not told");
  const completed = turn.events.flatMap((event) => (event.case === "toolCallCompleted" ? [event.value] : []));
  expect(completed).toHaveLength(1);
  expect(completed[0]?.content).toBe(told.content);
  expect(told).toMatchObject({ role: "tool", toolCallId: request.id });
  return { outcome: completed[0]?.outcome, content: told.content, turn };
}

test("a tool gets the model's arguments and an id, and the model what it says", async () => {
  const calls: [string, ToolCall][] = [];
  const { outcome, content, turn } = await outcomeOf(async (...call) => {
    calls.push(call);
    return "It is sunny.";
  });
  expect([outcome, content]).toEqual([ToolOutcome.OK, "It is sunny."]);
  expect(calls).toMatchObject([[CALL.argumentsJson, { id: "tool-1" }]]);
  expect(turn.events.map((event) => event.case)).toEqual([
    "agentStarted",
    "usageRecorded",
    "toolCallStarted",
    "toolCallCompleted",
    "textDelta",
    "messageCompleted",
    "usageRecorded",
  ]);
  expect(turn.requests[0]?.tools).toEqual([
    { name: "look_up", description: "Does look_up.", parameters: { type: "object" } },
  ]);
  expect(turn.end.finishReason).toBe(FinishReason.STOP);
});

test.each([
  ["that there is not", { ...CALL, name: "fly" }],
  ["that the agent is not allowed", { ...CALL, name: "delete_all" }],
])("a tool %s is not called, and the model is told that there is none", async (_, request) => {
  const call = vi.fn(async () => "never");
  const { outcome, content } = await outcomeOf(call, { request });
  expect(call).not.toHaveBeenCalled();
  expect(outcome).toBe(ToolOutcome.ERROR);
  expect(content).toContain(request.name);
});

test.each(["", "nonsense", "[1]", '"text"', "null", "5", '{"a":'])(
  "arguments that are no JSON object (%s) are refused without a call",
  async (argumentsJson) => {
    const call = vi.fn(async () => "never");
    const { outcome, content } = await outcomeOf(call, { request: { ...CALL, argumentsJson } });
    expect(call).not.toHaveBeenCalled();
    expect(outcome).toBe(ToolOutcome.REFUSED);
    expect(content).toContain("not a JSON object");
  },
);

test.each([
  ["rejects", () => Promise.reject(new Error("secret: connection to db-7 refused"))],
  [
    "throws",
    () => {
      throw new Error("secret: connection to db-7 refused");
    },
  ],
])("a tool that %s has failed, and its error's words go no further", async (_, call) => {
  const { outcome, content, turn } = await outcomeOf(call);
  expect([outcome, content]).toEqual([ToolOutcome.ERROR, "The tool failed."]);
  expect(JSON.stringify(turn.events)).not.toContain("secret");
});

test("a tool that hangs is given up after the team's time, and its signal is aborted", async () => {
  let signal: AbortSignal | undefined;
  const { outcome, content } = await outcomeOf(
    (_, call) => {
      signal = call.signal;
      return new Promise(() => undefined);
    },
    { allowed: { ...team, callTimeoutMs: 20 } },
  );
  expect(outcome).toBe(ToolOutcome.ERROR);
  expect(content).toContain("may have taken effect");
  expect(signal?.aborted).toBe(true);
});

test("a result that is too long is cut", async () => {
  const wide = { ...ASSISTANT, tools: [CALL.name], contextWindowTokens: 100_000 };
  const { outcome, content } = await outcomeOf(async () => "x".repeat(70_000), {
    allowed: { ...team, agents: [wide] },
    maxTokens: 100_000,
  });
  expect(outcome).toBe(ToolOutcome.OK);
  expect(content).toHaveLength(65_536 + " … (cut)".length);
});

test("the end of the turn ends a tool call whose outcome is then unknown, and no further call is made", async () => {
  const stop = new AbortController();
  const turn = await run({
    team,
    stop,
    tools: [
      tool((_, { signal }) => {
        stop.abort();
        expect(signal.aborted).toBe(true);
        return new Promise(() => undefined);
      }),
    ],
    // The model that is asked to go on sees that the turn is over.
    script: [asking(CALL), { ...reply(), failure: new Failure("CALL_CANCELLED") }],
  });
  const completed = turn.events.find((event) => event.case === "toolCallCompleted");
  expect(completed?.value).toMatchObject({ outcome: ToolOutcome.UNKNOWN, content: UNKNOWN_OUTCOME });
  expect(turn.end.finishReason).toBe(FinishReason.CANCELLED);
});

test("several calls of one reply are made in its order, each under an id of its own", async () => {
  const order: string[] = [];
  const turn = await run({
    team,
    tools: [
      tool(async (argumentsJson) => {
        order.push(argumentsJson);
        return argumentsJson;
      }),
    ],
    script: [
      asking({ ...CALL, argumentsJson: '{"n":1}' }, { ...CALL, argumentsJson: '{"n":2}' }),
      asking({ ...CALL, argumentsJson: '{"n":3}' }),
      reply("Done."),
    ],
  });
  expect(order).toEqual(['{"n":1}', '{"n":2}', '{"n":3}']);
  const ids = turn.events.flatMap((event) => (event.case === "toolCallStarted" ? [event.value.toolCallId] : []));
  expect(new Set(ids).size).toBe(3);
  expect(turn.requests[2]?.messages.slice(2).map(({ role }) => role)).toEqual([
    "assistant",
    "tool",
    "tool",
    "assistant",
    "tool",
  ]);
});

test("a result that fills the turn's tokens leaves no further call: TOKEN_BUDGET", async () => {
  const turn = await run({
    team,
    maxTokens: 2_000,
    tools: [tool(async () => "word ".repeat(3_000))],
    script: [asking(CALL), reply("never")],
  });
  expect(turn.requests).toHaveLength(1);
  expect(turn.end.finishReason).toBe(FinishReason.TOKEN_BUDGET);
});

test("what tools cost in a prompt counts: a message fits without them and not with them", async () => {
  const large = { ...tool(async () => ""), description: "word ".repeat(1_000) };
  const input = { message: "Hi", maxTokens: 1_000, script: [reply("Hello.")] };
  expect((await run({ ...input, tools: [large] })).end.finishReason).toBe(FinishReason.STOP);
  await expect(run({ ...input, team, tools: [large] })).rejects.toMatchObject({ reason: "TURN_TOKEN_BUDGET" });
});

test("tokens of earlier calls count against later ones", async () => {
  const usage = { ...USAGE, promptTokens: 300, completionTokens: 100 };
  const turn = await run({
    team,
    maxTokens: 1_500,
    tools: [tool(async () => "ok")],
    script: [{ ...asking(CALL), usage }, { ...asking(CALL), usage }, reply("never")],
  });
  expect(turn.requests.map(({ maxTotalTokens }) => maxTotalTokens)).toEqual([1_500, 1_100, 700]);
});
