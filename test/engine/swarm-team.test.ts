import { expect, test } from "vitest";
import { Role } from "../../gen/parley/chat/v1/message_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { AgentDefinition, TeamDefinition } from "../../src/engine/team.ts";
import { ASSISTANT, asking, record, reply, run, TEAM } from "./scripted-turn.ts";

const agent = (name: string, ...to: string[]): AgentDefinition => ({
  ...ASSISTANT,
  name,
  handoffs: to.map((target) => ({ to: target, description: `Is ${target}.` })),
});
const DESK: TeamDefinition = {
  ...TEAM,
  kind: "swarm",
  agents: [agent("triage", "refunds"), agent("refunds", "triage")],
  maxRounds: 20,
};
const transfer = (to: string) => asking({ id: "c1", name: `transfer_to_${to}`, argumentsJson: "{}" });
const handoffs = ({ events }: Awaited<ReturnType<typeof run>>) =>
  events.flatMap((event) => (event.case === "handoff" ? [[event.value.fromAgent, event.value.toAgent]] : []));

test("an agent hands over by a tool call, and whoever answers without one ends the turn", async () => {
  const turn = await run({ team: DESK, script: [transfer("refunds"), reply("Refunded.")] });
  expect(turn.requests[0]?.tools).toMatchObject([{ name: "transfer_to_refunds" }]);
  expect(turn.requests[0]?.tools[0]?.description).toContain("Is refunds.");
  expect(turn.requests[1]?.tools).toMatchObject([{ name: "transfer_to_triage" }]);
  expect(turn.requests[1]?.messages.at(-1)).toEqual({
    role: "user",
    name: "triage",
    content: "Handed over to refunds.",
  });
  expect(handoffs(turn)).toEqual([["triage", "refunds"]]);
  expect(turn.events.map((event) => event.case)).not.toContain("toolCallStarted");
  expect(turn.content).toBe("Refunded.");
  expect(turn.end).toEqual({ finishReason: FinishReason.STOP });
});

test("the next message goes to whoever spoke last; to the first where that is no member", async () => {
  const asked = async (speaker: string) => {
    const history = [record(Role.USER, "Hi"), record(Role.ASSISTANT, "Yes?", speaker)];
    const turn = await run({ team: DESK, history, script: [reply("A")] });
    return turn.events.find((event) => event.case === "agentStarted")?.value.agent;
  };
  expect(await asked("refunds")).toBe("refunds");
  expect(await asked("gone")).toBe("triage");
});

test("of several hand-offs the first counts; one that the agent has not is told to its model", async () => {
  const both = asking(
    { id: "c1", name: "transfer_to_refunds", argumentsJson: "{}" },
    { id: "c2", name: "transfer_to_triage", argumentsJson: "{}" },
  );
  const three: TeamDefinition = { ...DESK, agents: [agent("desk", "refunds", "triage"), ...DESK.agents] };
  const turn = await run({ team: three, script: [both, reply("A")] });
  expect(handoffs(turn)).toEqual([["desk", "refunds"]]);
  expect(turn.requests[1]?.messages.at(-1)?.content).toBe("Handed over to refunds.");
  const refused = await run({ team: DESK, script: [transfer("nobody"), reply("I answer.")] });
  expect(handoffs(refused)).toEqual([]);
  expect(refused.requests[1]?.messages.at(-1)).toMatchObject({ role: "tool", toolCallId: "c1" });
  expect(refused.end.finishReason).toBe(FinishReason.STOP);
});

test("agents who hand over to each other for ever are ended by the bound", async () => {
  const script = Array.from({ length: 9 }, (_, index) => transfer(index % 2 === 0 ? "refunds" : "triage"));
  const turn = await run({ team: { ...DESK, maxConsecutiveAutoReply: 2 }, script });
  expect(turn.requests).toHaveLength(4);
  expect(turn.end.finishReason).toBe(FinishReason.MAX_ROUNDS);
});
