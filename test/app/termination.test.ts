import { expect, onTestFinished, test } from "vitest";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { startTestApp } from "../support/parley-app.ts";
import { callerOf, expectWhole, spoken, turnIdOf } from "./clients.ts";

// Each way that AutoGen knows to end a team's turn, and what turn_completed says of it.

const { TERMINATED, MAX_ROUNDS, TOKEN_BUDGET } = FinishReason;

/** A team of two who echo, with what ends it. */
const cases: readonly (readonly [name: string, team: object, reason: FinishReason, termination: string])[] = [
  ["text mention", { termination: { text_mention: "hello" } }, TERMINATED, "TextMentionTermination"],
  ["the termination text", { agents: ["caller", "closer"] }, TERMINATED, "TextMentionTermination"],
  ["max messages", { termination: { max_messages: 3 } }, TERMINATED, "MaxMessageTermination"],
  ["max rounds", { max_rounds: 3 }, MAX_ROUNDS, ""],
  ["consecutive replies", { max_consecutive_auto_reply: 2 }, MAX_ROUNDS, ""],
  ["token usage", { termination: { token_usage: 100 } }, TERMINATED, "TokenUsageTermination"],
  ["the turn's tokens", {}, TOKEN_BUDGET, ""],
  ["timeout", { agents: ["slow", "caller"], termination: { timeout_seconds: 1 } }, TERMINATED, "TimeoutTermination"],
  [
    "hand-off",
    { kind: "swarm", agents: ["sender", "caller"], termination: { handoff: "caller" } },
    TERMINATED,
    "HandoffTermination",
  ],
  ["source match", { termination: { source_match: ["second"] } }, TERMINATED, "SourceMatchTermination"],
  ["function call", { termination: { function_call: "current_time" } }, TERMINATED, "FunctionCallTermination"],
  [
    "one of several",
    { termination: { or: [{ text_mention: "never" }, { max_messages: 2 }] } },
    TERMINATED,
    "MaxMessageTermination",
  ],
  [
    "all of several",
    { termination: { and: [{ source_match: ["second"] }, { max_messages: 2 }] } },
    TERMINATED,
    "SourceMatchTermination & MaxMessageTermination",
  ],
];

const yaml = JSON.stringify({
  agents: {
    caller: { model: "sim-tools", tools: ["current_time"] },
    second: { model: "gpt-4o" },
    closer: { model: "sim-terminate" },
    slow: { model: "sim-20x150" },
    endless: { model: "sim-5000x30" },
    sender: { model: "sim-tools", handoffs: ["caller"] },
  },
  teams: {
    ...Object.fromEntries(
      cases.map(([name, team]) => [
        name.replaceAll(/\W/g, "_"),
        { kind: "round_robin", agents: ["caller", "second"], ...team },
      ]),
    ),
    endless: { kind: "round_robin", agents: ["endless", "second"] },
  },
  models: {
    "sim-20x150": { context_window_tokens: 100_000, endpoints: [{}] },
    "sim-5000x30": { context_window_tokens: 100_000, endpoints: [{}] },
  },
});

test.each(cases)("%s", async (name, _, finishReason, termination) => {
  const app = await startTestApp({ yaml });
  onTestFinished(() => app.close());
  const reading = callerOf(app).stream("", "hello", name.replaceAll(/\W/g, "_"));
  expect(await reading.end).toBeUndefined();
  expectWhole(reading.events);
  expect(reading.events.at(-1)?.event).toMatchObject({ case: "turnCompleted", value: { finishReason, termination } });
});

test("external", async () => {
  const app = await startTestApp({ yaml });
  onTestFinished(() => app.close());
  const caller = callerOf(app);
  const reading = caller.stream("", "hello", "endless", { maxTokens: 0 });
  await spoken(reading);
  await caller.chat.cancelTurn({ turnId: turnIdOf(reading) });
  await reading.end;
  expect(reading.events.at(-1)?.event).toMatchObject({
    case: "turnCompleted",
    value: { finishReason: FinishReason.CANCELLED, termination: "" },
  });
});
