import { expect, test } from "vitest";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { AgentDefinition, SelectorDefinition, TeamDefinition } from "../../src/engine/team.ts";
import { ASSISTANT, reply, run, TEAM } from "./scripted-turn.ts";

const agent = (name: string, description: string): AgentDefinition => ({ ...ASSISTANT, name, description });
const SELECTOR: SelectorDefinition = {
  model: "gpt-4",
  contextWindowTokens: 8_192,
  prompt: "Roles:\n{roles}\nSaid:\n{history}\nOne of {participants}?",
  maxAttempts: 3,
  allowRepeatSpeaker: false,
};
const EXPERTS: TeamDefinition = {
  ...TEAM,
  kind: "selector",
  agents: [agent("law", "Knows laws."), agent("tax", "Knows taxes."), agent("cook", "Cooks.")],
  maxRounds: 20,
  selector: SELECTOR,
};
const repeating: TeamDefinition = { ...EXPERTS, selector: { ...SELECTOR, allowRepeatSpeaker: true } };

/** Whom the manager let speak. */
const selected = ({ events }: Awaited<ReturnType<typeof run>>) =>
  events.flatMap((event) => (event.case === "speakerSelected" ? [event.value.agent] : []));

test("the manager picks by names and descriptions; its words are nobody's message, its usage is recorded as its own", async () => {
  const turn = await run({
    team: EXPERTS,
    message: "Do I owe {roles}?",
    script: [reply("tax"), reply("Yes."), reply("The next is law."), reply("No. TERMINATE")],
  });
  expect(selected(turn)).toEqual(["tax", "law"]);
  expect(turn.requests[0]?.messages).toEqual([
    {
      role: "user",
      content:
        "Roles:\nlaw: Knows laws.\ntax: Knows taxes.\ncook: Cooks.\nSaid:\nuser: Do I owe {roles}?\nOne of law, tax, cook?",
    },
  ]);
  // Who has just spoken is not offered.
  expect(turn.requests[2]?.messages[0]?.content).toBe(
    "Roles:\nlaw: Knows laws.\ncook: Cooks.\nSaid:\nuser: Do I owe {roles}?\ntax: Yes.\nOne of law, cook?",
  );
  expect(turn.events.map((event) => event.case)).toEqual(
    ["Yes.", "No."].flatMap(() => [
      "usageRecorded",
      "speakerSelected",
      "agentStarted",
      "textDelta",
      "messageCompleted",
      "usageRecorded",
    ]),
  );
  const paidFor = turn.events.flatMap((event) => (event.case === "usageRecorded" ? [event.value.agent] : []));
  expect(paidFor).toEqual(["selector", "tax", "selector", "law"]);
  expect(turn.end).toEqual({ finishReason: FinishReason.TERMINATED, termination: "TextMentionTermination" });
});

test.each([
  ["prose without a name", "Let me think about taxation.", "names nobody"],
  ["nobody known", "plumber", "names nobody"],
  ["nothing", "", "names nobody"],
  ["two", "law or tax", "more than one"],
])("a choice of %s is told to the manager, and made again", async (_, choice, told) => {
  const turn = await run({ team: EXPERTS, script: [reply(choice), reply("cook"), reply("Soup. TERMINATE")] });
  expect(selected(turn)).toEqual(["cook"]);
  expect(turn.requests[1]?.messages.at(-2)).toEqual({ role: "assistant", content: choice });
  expect(turn.requests[1]?.messages.at(-1)?.content).toContain(told);
});

test.each([
  ["the first who may speak", EXPERTS, ["cook", "law"]],
  ["the last speaker, where that may go on", repeating, ["cook", "cook"]],
])("where no choice is valid, it is %s", async (_, team, expected) => {
  const script = [reply("cook"), reply("Soup."), reply("?"), reply("cook and law"), reply("!"), reply("TERMINATE")];
  expect(selected(await run({ team, script }))).toEqual(expected);
});

test("a repeated choice is refused, or taken where the team allows it", async () => {
  const script = [reply("cook"), reply("Soup."), reply("cook"), reply("law"), reply("TERMINATE")];
  const refused = await run({ team: EXPERTS, script });
  expect(selected(refused)).toEqual(["cook", "law"]);
  expect(refused.requests[3]?.messages.at(-1)?.content).toContain("may not again");
  const taken = await run({ team: repeating, script: [...script.slice(0, 3), reply("TERMINATE")] });
  expect(selected(taken)).toEqual(["cook", "cook"]);
});

test("choices count as model calls of the turn", async () => {
  const turn = await run({
    team: { ...EXPERTS, maxRounds: 3 },
    script: [reply("cook"), reply("Soup."), reply("law")],
  });
  expect(turn.requests).toHaveLength(3);
  expect(turn.end.finishReason).toBe(FinishReason.MAX_ROUNDS);
});

test("a message that does not fit the manager's window is refused before any call", async () => {
  const turn = run({ team: EXPERTS, script: [], message: "word ".repeat(4_000) });
  await expect(turn).rejects.toMatchObject({ reason: "TURN_TOKEN_BUDGET" });
});
