import { expect, test } from "vitest";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { NO_QUESTION, personBeside } from "../../src/engine/person.ts";
import type { AgentDefinition, TeamDefinition } from "../../src/engine/team.ts";
import { ASSISTANT, asking, reply, run, TEAM } from "./scripted-turn.ts";

const agent = (name: string): AgentDefinition => ({ ...ASSISTANT, name, asksPerson: true });
const person = personBeside(ASSISTANT);
const ask = (question: unknown, id = "q") =>
  asking({ id, name: "ask_user", argumentsJson: JSON.stringify({ question }) });
const said = (text: string) => ({ approved: false, text });
const spoken = ({ events }: Awaited<ReturnType<typeof run>>) =>
  events.flatMap((event) => (event.case === "messageCompleted" ? [event.value.content] : []));
const questionsIn = ({ events }: Awaited<ReturnType<typeof run>>) =>
  events.flatMap((event) => (event.case === "inputRequired" ? [event.value] : []));

const single: TeamDefinition = { ...TEAM, agents: [agent("assistant")] };

test("an agent asks by a tool call: the question is a message, and the turn ends with it", async () => {
  const turn = await run({ team: single, script: [ask("Which city?")] });
  expect(turn.requests[0]?.tools.map(({ name }) => name)).toEqual(["ask_user"]);
  expect(spoken(turn)).toEqual(["Which city?"]);
  expect(questionsIn(turn)).toEqual([{ agent: "assistant", prompt: "Which city?" }]);
  expect(turn.end).toEqual({ finishReason: FinishReason.INPUT_REQUIRED, questions: ["q-1"] });
});

test("with the answer the agent goes on", async () => {
  const script = [ask("Which city?"), reply("Rome is sunny.")];
  const turn = await run({ team: single, script, answers: { "q-1": said("Rome") } });
  expect(turn.requests[1]?.messages.at(-1)).toEqual({ role: "tool", toolCallId: "q", content: "Rome" });
  expect(turn.end).toEqual({ finishReason: FinishReason.STOP });
});

test.each([undefined, "", "  ", 3])(
  "a question that is none (%j) is told to the model, and nobody is asked",
  async (question) => {
    const turn = await run({ team: single, script: [ask(question), reply("Then not.")] });
    expect(turn.requests[1]?.messages.at(-1)?.content).toBe(NO_QUESTION);
    expect(turn.end.finishReason).toBe(FinishReason.STOP);
  },
);

test("an agent of a team without human input has no such tool", async () => {
  const turn = await run({ script: [ask("Which city?"), reply("I guess.")] });
  expect(turn.requests[0]?.tools).toEqual([]);
  expect(turn.requests[1]?.messages.at(-1)?.content).toContain("no tool named");
});

const round: TeamDefinition = {
  ...TEAM,
  kind: "round_robin",
  agents: [agent("writer"), person],
  maxRounds: 20,
  maxConsecutiveAutoReply: 1,
  termination: { kind: "text_mention", text: "APPROVE" },
};

test("in a round the person is asked when it is their turn, and nothing is said twice", async () => {
  const turn = await run({ team: round, script: [reply("A draft.")] });
  expect(spoken(turn)).toEqual(["A draft."]);
  expect(questionsIn(turn)).toEqual([{ agent: "writer", prompt: "A draft." }]);
  expect(turn.end).toEqual({ finishReason: FinishReason.INPUT_REQUIRED, questions: ["user_proxy-1"] });
});

test("what the person says is the user's word; replies are consecutive until then; conditions look at it", async () => {
  const answers = { "user_proxy-1": said("Shorter."), "user_proxy-2": said("I APPROVE.") };
  const turn = await run({ team: round, script: [reply("A draft."), reply("Draft.")], answers });
  expect(turn.requests[1]?.messages.slice(-3)).toEqual([
    { role: "user", content: "Hi" },
    { role: "assistant", content: "A draft." },
    { role: "user", content: "Shorter." },
  ]);
  expect(turn.end).toEqual({ finishReason: FinishReason.TERMINATED, termination: "TextMentionTermination" });
});

test("a selector may choose the person", async () => {
  const team: TeamDefinition = {
    ...round,
    kind: "selector",
    agents: [agent("law"), agent("tax"), person],
    selector: {
      model: "gpt-4",
      contextWindowTokens: 8_192,
      prompt: "{roles} {participants} {history}",
      maxAttempts: 3,
      allowRepeatSpeaker: false,
    },
  };
  const turn = await run({ team, script: [reply("law"), reply("It depends. On what?"), reply("user_proxy")] });
  expect(questionsIn(turn)).toEqual([{ agent: "law", prompt: "It depends. On what?" }]);
});

test("in a swarm the person is handed over to, and who did it goes on with the answer", async () => {
  const desk = { ...agent("desk"), handoffs: [{ to: "user_proxy", description: "" }] };
  const team: TeamDefinition = { ...round, kind: "swarm", agents: [agent("triage"), desk, person] };
  const triage = { ...agent("triage"), handoffs: [{ to: "desk", description: "" }] };
  const to = (name: string) => asking({ id: name, name: `transfer_to_${name}`, argumentsJson: "{}" });
  const turn = await run({
    team: { ...team, agents: [triage, desk, person] },
    script: [to("desk"), to("user_proxy"), reply("Thanks.")],
    answers: { "user_proxy-1": said("Order 7") },
  });
  expect(turn.requests[2]?.messages.at(-1)).toEqual({ role: "user", content: "Order 7" });
  expect(turn.events.findLast((event) => event.case === "agentStarted")?.value).toEqual({ agent: "desk" });
  expect(turn.end.finishReason).toBe(FinishReason.STOP);
});
