import { expect, onTestFinished, test } from "vitest";
import { ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { startScriptedModel } from "../../src/providers/scripted-model.ts";
import { STDIO_SERVER, startHttpMcpServer } from "../support/mcp-server.ts";
import { startTestApp } from "../support/parley-app.ts";
import { callerOf, expectWhole, finishOf, type Reading } from "./clients.ts";

// What models, tools and selectors do wrong ends in a typed event, within the limits, and the turn goes on or ends.

const { ERROR, OK, REFUSED } = ToolOutcome;

async function turnOf(yaml: object, message: string, env = {}): Promise<Reading & { readonly calls: number }> {
  const app = await startTestApp({ yaml: JSON.stringify(yaml), env: { MAX_TOKENS: "50000", ...env } });
  onTestFinished(() => app.close());
  const reading = callerOf(app).stream("", message, "");
  expect(await reading.end).toBeUndefined();
  expectWhole(reading.events);
  return { ...reading, calls: app.simulated.callCount };
}

function toolCalls({ events }: Pick<Reading, "events">) {
  return events.flatMap(({ event }) =>
    event.case === "toolCallCompleted" ? [[event.value.outcome, event.value.content] as const] : [],
  );
}

const faults = [
  ["hangs", "hang", "{}", "did not answer in time"],
  ["returns 50 MB", "large", '{"bytes":50000000}', "too long"],
  ["dies amid the call", "die", "{}", /lost amid the call|no answer that can be read/],
] as const;

/** A large answer takes its time on a busy machine, and is to be refused for its length. */
const PATIENCE_MS: Readonly<Record<string, number>> = { large: 50_000 };

test.each([
  ...faults.map((fault) => ["stdio", ...fault] as const),
  // What is no JSON, and what is no result.
  ["stdio", "returns invalid JSON", "garbage_only", "{}", "did not answer in time"],
  ["stdio", "returns what is no result", "wrong", "{}", "no answer that can be read"],
  ...faults.map((fault) => ["HTTP", ...fault] as const),
] as const)("over %s a tool that %s: the model is told, and the turn goes on", async (way, _, tool, args, told) => {
  const http = way === "HTTP" ? await startHttpMcpServer() : undefined;
  onTestFinished(() => http?.close());
  const server = {
    ...(http === undefined ? STDIO_SERVER : { url: http.url }),
    call_timeout_ms: PATIENCE_MS[tool] ?? 3_000,
  };
  const turn = await turnOf(
    {
      agents: { user: { model: "sim-tools", tools: [`tests.${tool}`] } },
      teams: { user: { agent: "user" } },
      mcp_servers: { tests: server },
    },
    args,
  );
  expect(toolCalls(turn)).toEqual([[ERROR, expect.stringMatching(told)]]);
  expect([finishOf(turn.events), turn.calls]).toEqual([FinishReason.STOP, 2]);
});

test.each([
  ["a tool that there is not, for ever", "sim-tool-loop", [], "hello", ERROR, 5, FinishReason.MAX_ROUNDS],
  ["a tool that it may not, for ever", "sim-tool-loop", ["current_time"], "hello", ERROR, 5, FinishReason.MAX_ROUNDS],
  ["a tool with malformed arguments", "sim-tools", ["current_time"], "{no JSON}", REFUSED, 1, FinishReason.STOP],
] as const)("a model that calls %s", async (_, model, tools, message, outcome, times, finishReason) => {
  const turn = await turnOf(
    { agents: { user: { model, tools } }, teams: { user: { agent: "user", max_rounds: 5 } } },
    message,
  );
  expect(toolCalls(turn).map(([is]) => is)).toEqual(Array.from({ length: times }, () => outcome));
  expect(finishOf(turn.events)).toBe(finishReason);
});

test("a model that calls a tool with no text for its arguments has called it without arguments", async () => {
  const model = await startScriptedModel([
    { toolCalls: [{ name: "current_time", arguments: "" }] },
    { expect: { last: "T" }, text: "Noon." },
  ]);
  onTestFinished(() => model.close());
  const yaml = { agents: { user: { model: "gpt-4o", tools: ["current_time"] } }, teams: { user: { agent: "user" } } };
  const turn = await turnOf(yaml, "What time is it?", { OPENAI_BASE_URL: model.baseUrl });
  expect(toolCalls(turn)).toEqual([[OK, expect.stringContaining("T")]]);
  model.verify();
});

test.each([
  ["prose that names several", "gpt-4o", "{participants}"],
  ["prose that names nobody", "gpt-4o", "Who?"],
  ["nothing", "sim-tools", "x"],
])("a selector that answers %s is asked again, and then the first who may speak does", async (_, model, prompt) => {
  const turn = await turnOf(
    {
      agents: { one: { model: "sim-terminate" }, two: { model: "sim-terminate" } },
      teams: {
        picked: { kind: "selector", agents: ["one", "two"], selector_model: model, selector_prompt: prompt },
      },
    },
    "hello",
  );
  const usage = turn.events.flatMap(({ event }) => (event.case === "usageRecorded" ? [event.value.agent] : []));
  expect(usage).toEqual(["selector", "selector", "selector", "one"]);
  expect(finishOf(turn.events)).toBe(FinishReason.TERMINATED);
});

test("agents that hand over in a cycle end with the team's rounds", async () => {
  const agents = { one: { model: "sim-tools", handoffs: ["two"] }, two: { model: "sim-tools", handoffs: ["one"] } };
  const turn = await turnOf(
    { agents, teams: { cycle: { kind: "swarm", agents: ["one", "two"], max_rounds: 4 } } },
    "go",
  );
  expect(finishOf(turn.events)).toBe(FinishReason.MAX_ROUNDS);
  expect(turn.calls).toBe(4);
});
