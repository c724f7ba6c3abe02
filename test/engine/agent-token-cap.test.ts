import { describe, expect, test } from "vitest";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { AgentStopReason } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { TeamDefinition } from "../../src/engine/team.ts";
import type { TurnEvent } from "../../src/engine/turn.ts";
import { ASSISTANT, asking, reply, run, type Scripted, TEAM } from "./scripted-turn.ts";

const CAP = 700;
const capped = { ...ASSISTANT, name: "capped", maxTokens: CAP };
const free = { ...ASSISTANT, name: "free" };

function teamOf(kind: TeamDefinition["kind"], fields: Partial<TeamDefinition> = {}): TeamDefinition {
  return { ...TEAM, kind, agents: [capped, free], maxRounds: 20, ...fields };
}

/** A reply that used so many tokens. */
function using(tokens: number, said: Scripted): Scripted {
  const usage = { promptTokens: tokens - 5, completionTokens: 5, source: UsageSource.PROVIDER };
  return { ...said, usage };
}

function stoppedIn(events: readonly TurnEvent[]) {
  return events.flatMap((event) => (event.case === "agentStopped" ? [event.value] : []));
}

function speakersOf(events: readonly TurnEvent[]) {
  return events.flatMap((event) => (event.case === "messageCompleted" ? [event.value.agent] : []));
}

const STOPPED = { agent: "capped", reason: AgentStopReason.TOKEN_CAP };

test("in a round an agent that has used its tokens is passed over, and the others go on", async () => {
  const script = [using(300, reply("one")), reply("two"), reply("three"), reply("four TERMINATE")];
  const { end, events, requests } = await run({ script, team: teamOf("round_robin") });
  expect(speakersOf(events)).toEqual(["capped", "free", "free", "free"]);
  expect(stoppedIn(events)).toEqual([STOPPED]);
  expect(end.finishReason).toBe(FinishReason.TERMINATED);
  // No call of it could have gone beyond its bound.
  expect(requests[0]).toMatchObject({ maxTotalTokens: CAP });
  expect(requests[0]?.maxOutputTokens).toBeLessThan(CAP);
  expect(requests[1]?.maxOutputTokens).toBeGreaterThan(CAP);
});

test("an answer that is cut by the agent's bound stands, and the others go on", async () => {
  const cut = { ...using(CAP, reply("as far as")), ended: "length" } as const;
  const { end, events } = await run({ script: [cut, reply("done TERMINATE")], team: teamOf("round_robin") });
  expect(speakersOf(events)).toEqual(["capped", "free"]);
  expect(stoppedIn(events)).toEqual([STOPPED]);
  expect(end.finishReason).toBe(FinishReason.TERMINATED);
});

test("an answer that was to be no longer ends the turn, though the agent has a bound of its own", async () => {
  const brief = { ...capped, maxOutputTokens: 20 };
  const cut = { ...using(100, reply("as far as")), ended: "length" } as const;
  const { end, events, requests } = await run({
    script: [cut],
    team: teamOf("round_robin", { agents: [brief, free] }),
  });
  expect(requests[0]?.maxOutputTokens).toBe(20);
  expect(stoppedIn(events)).toEqual([]);
  expect(end.finishReason).toBe(FinishReason.TOKEN_BUDGET);
});

test("an agent amid its tool calls stops before the next model call", async () => {
  const calling = using(CAP - 100, asking({ id: "c", name: "nothing", argumentsJson: "{}" }));
  const { events } = await run({ script: [calling, reply("done TERMINATE")], team: teamOf("round_robin") });
  expect(speakersOf(events)).toEqual(["free"]);
  expect(stoppedIn(events)).toEqual([STOPPED]);
});

test("a turn ends where nobody may speak any more", async () => {
  const agents = [capped, { ...capped, name: "other" }] as const;
  const script = [using(300, reply("one")), using(300, reply("two"))];
  const { end, events } = await run({ script, team: teamOf("round_robin", { agents }) });
  expect(stoppedIn(events).map(({ agent }) => agent)).toEqual(["capped", "other"]);
  expect(end).toEqual({ finishReason: FinishReason.TOKEN_BUDGET });
});

test("a single agent's bound ends the turn; a message that does not fit it is refused", async () => {
  const team = teamOf("single", { agents: [capped] });
  const calling = using(CAP - 100, asking({ id: "c", name: "nothing", argumentsJson: "{}" }));
  const { end, events } = await run({ script: [calling], team });
  expect([end.finishReason, stoppedIn(events)]).toEqual([FinishReason.TOKEN_BUDGET, [STOPPED]]);
  await expect(run({ script: [], team, message: "word ".repeat(400) })).rejects.toMatchObject({
    reason: "TURN_TOKEN_BUDGET",
  });
});

test("a selector does not pick who has no tokens left", async () => {
  const prompt = "{roles}";
  const selector = { model: "gpt-4", contextWindowTokens: 8_192, prompt, maxAttempts: 1, allowRepeatSpeaker: true };
  const third = { ...free, name: "third" };
  const team = teamOf("selector", { agents: [capped, free, third], selector });
  const cut = { ...using(CAP, reply("as far as")), ended: "length" } as const;
  const script = [reply("capped"), cut, reply("capped"), reply("done TERMINATE")];
  const { events, requests } = await run({ script, team });
  expect(requests[2]?.messages).toEqual([{ role: "user", content: "free: \nthird: " }]);
  expect(speakersOf(events)).toEqual(["capped", "free"]);
});

describe("in a swarm", () => {
  const handing = (from: typeof free, to: string) => ({ ...from, handoffs: [{ to, description: "" }] });
  const team = teamOf("swarm", { agents: [handing(free, "capped"), handing(capped, "free")] });
  const transfer = (to: string) => asking({ id: "t", name: `transfer_to_${to}`, argumentsJson: "{}" });

  test("the turn ends with the word at an agent that is stopped", async () => {
    const script = [transfer("capped"), using(600, transfer("free")), transfer("capped")];
    const { end, events } = await run({ script, team });
    expect(stoppedIn(events)).toEqual([STOPPED]);
    expect(end).toEqual({ finishReason: FinishReason.TOKEN_BUDGET });
  });
});
