import { expect, test } from "vitest";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { AgentDefinition, TeamDefinition } from "../../src/engine/team.ts";
import { type AnswerFacts, createTermination, type TerminationDefinition } from "../../src/engine/termination.ts";
import { ASSISTANT, reply, run, TEAM } from "./scripted-turn.ts";

const NOTHING: AnswerFacts = {
  agent: "writer",
  content: "A draft.",
  messages: 2,
  usedTokens: 10,
  elapsedMs: 100,
  calls: [],
  handoff: undefined,
};

test.each<[TerminationDefinition, Partial<AnswerFacts>, string]>([
  [{ kind: "text_mention", text: "APPROVE" }, { content: "I APPROVE." }, "TextMentionTermination"],
  [{ kind: "max_messages", limit: 3 }, { messages: 3 }, "MaxMessageTermination"],
  [{ kind: "token_usage", limit: 11 }, { usedTokens: 11 }, "TokenUsageTermination"],
  [{ kind: "timeout_seconds", limit: 1 }, { elapsedMs: 1_000 }, "TimeoutTermination"],
  [{ kind: "handoff", name: "refunds" }, { handoff: "refunds" }, "HandoffTermination"],
  [{ kind: "function_call", name: "approve" }, { calls: ["look", "approve"] }, "FunctionCallTermination"],
  [{ kind: "source_match", sources: ["critic"] }, { agent: "critic" }, "SourceMatchTermination"],
])("%j is met by %j alone", (definition, facts, name) => {
  const termination = createTermination(definition);
  expect(termination(NOTHING)).toBeUndefined();
  expect(termination({ ...NOTHING, ...facts })).toBe(name);
});

test("`or` is met by one, `and` by all, one after the other too", () => {
  const conditions: TerminationDefinition[] = [
    { kind: "text_mention", text: "APPROVE" },
    { kind: "source_match", sources: ["critic"] },
  ];
  expect(createTermination({ kind: "or", conditions })({ ...NOTHING, agent: "critic" })).toBe("SourceMatchTermination");
  const both = createTermination({ kind: "and", conditions });
  expect(both({ ...NOTHING, content: "APPROVE" })).toBeUndefined();
  expect(both(NOTHING)).toBeUndefined();
  expect(both({ ...NOTHING, agent: "critic" })).toBe("TextMentionTermination & SourceMatchTermination");
});

test.each<[TerminationDefinition, number, string]>([
  [{ kind: "max_messages", limit: 4 }, 3, "MaxMessageTermination"],
  [{ kind: "token_usage", limit: 50 }, 2, "TokenUsageTermination"],
  [{ kind: "timeout_seconds", limit: 1 }, 1, "TimeoutTermination"],
  [{ kind: "source_match", sources: ["critic"] }, 2, "SourceMatchTermination"],
])("a team whose termination is %j ends after %i answers", async (termination, answers, name) => {
  const agents: [AgentDefinition, AgentDefinition] = [
    { ...ASSISTANT, name: "writer" },
    { ...ASSISTANT, name: "critic" },
  ];
  const team: TeamDefinition = { ...TEAM, kind: "round_robin", agents, maxRounds: 20, termination };
  const turn = await run({ team, script: Array.from({ length: 9 }, (_, index) => reply(`${index}`)) });
  expect(turn.requests).toHaveLength(answers);
  expect(turn.end).toEqual({ finishReason: FinishReason.TERMINATED, termination: name });
});
