import fc from "fast-check";
import { expect, test } from "vitest";
import { GuardrailStage } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { createOutputGuard, failedCheck, type GuardrailDefinition } from "../../src/engine/guardrails.ts";
import type { TeamDefinition } from "../../src/engine/team.ts";
import { ASSISTANT, asking, reply, run, TEAM } from "./scripted-turn.ts";

const SHORT: GuardrailDefinition = { name: "short", kind: "size", maxCharacters: 10 };
const CARD: GuardrailDefinition = {
  name: "no_cards",
  kind: "pattern",
  pattern: "\\d{16}",
  ignoreCase: false,
  holdCharacters: 20,
};
const CARD_NUMBER = "4111111111111111";

const checked = (guardrails: Partial<NonNullable<TeamDefinition["guardrails"]>>): TeamDefinition => ({
  ...TEAM,
  guardrails: { input: [], output: [], ...guardrails },
});

function shownOf(checks: readonly GuardrailDefinition[], pieces: readonly string[]) {
  const guard = createOutputGuard(checks);
  const shown = pieces.map((piece) => guard.push(piece)).join("") + guard.end();
  return { shown, tripped: guard.tripped };
}

test.each([
  [[SHORT], "0123456789", undefined],
  [[SHORT], "0123456789a", "short"],
  [[SHORT], "👍👍👍👍👍👍👍👍👍👍", undefined],
  [[CARD], `it is ${CARD_NUMBER}`, "no_cards"],
  [[{ ...CARD, pattern: "PASSWORD", ignoreCase: true }], "my Password", "no_cards"],
  [[{ ...CARD, pattern: "PASSWORD" }], "my Password", undefined],
] as const)("a text is held to its checks %#", (checks, text, failed) => {
  expect(failedCheck(checks, ["fine", text])).toBe(failed);
});

// A backtracking engine takes minutes, and the test has but its deadline.
test.each(["(a+)+$", "(a|a)*$", "^(\\w+\\s?)*$", "(.*a){20}"])("no pattern holds the process up: %s", (pattern) => {
  const text = `${"a".repeat(31)}!`;
  const check: GuardrailDefinition = { ...CARD, pattern: `${pattern}#` };
  expect(failedCheck([check], [text])).toBeUndefined();
  expect(shownOf([check], [text, "!"])).toEqual({ shown: `${text}!`, tripped: undefined });
});

test("a turn of 0.6.0 that waits keeps its pattern, also one that RE2 does not know", () => {
  const check: GuardrailDefinition = { ...CARD, pattern: "(?<!not )allowed", ignoreCase: true };
  expect(failedCheck([check], ["not allowed"])).toBeUndefined();
  expect(failedCheck([check], ["Allowed"])).toBe("no_cards");
});

test("wherever a message is cut: what passes is shown whole, and of what matches nothing is", () => {
  fc.assert(
    fc.property(fc.array(fc.string({ unit: "binary", maxLength: 8 })), fc.array(fc.nat(3)), (words, cuts) => {
      const text = words.join("");
      expect(shownOf([CARD], pieces(text, cuts))).toEqual({ shown: text, tripped: undefined });
      const { shown, tripped } = shownOf([CARD], pieces(`${text}${CARD_NUMBER}${text}`, cuts));
      expect(tripped).toBe("no_cards");
      expect(text.startsWith(shown)).toBe(true);
    }),
  );
});

test.each([
  ["\\bdamn\\b", ["well, damn", "ation"], "well, damnation", undefined],
  ["\\bdamn\\b", ["damn", " it"], "", "word"],
  ["\\bdamn\\b", ["well, damn"], "", "word"],
  ["\\d{4}$", ["1234", " or 567"], "1234 or 567", undefined],
  ["\\d{4}$", ["1234 or 5", "678"], "1234 or ", "word"],
  ["^no$", ["no", "body"], "nobody", undefined],
])("a match that what follows may undo is none until that is known: %s in %j", (pattern, cut, shown, tripped) => {
  const check: GuardrailDefinition = { name: "word", kind: "pattern", pattern, ignoreCase: false, holdCharacters: 0 };
  const whole = shownOf([check], cut);
  expect(whole.tripped).toBe(tripped);
  // Of what has been shown nothing matches, wherever it was cut.
  if (tripped === undefined) expect(whole.shown).toBe(shown);
  else expect(failedCheck([check], [whole.shown])).toBeUndefined();
});

test("what matches whatever follows ends the message at once", () => {
  const guard = createOutputGuard([{ ...CARD, pattern: "secret.*", holdCharacters: 0 }]);
  expect([guard.push("a "), guard.push("secret"), guard.tripped]).toEqual(["a ", "", "no_cards"]);
});

test("what is too long is shown as far as it may be, and cut between characters", () => {
  expect(shownOf([SHORT], ["01234", "56789", "abc"])).toEqual({ shown: "0123456789", tripped: "short" });
  expect(shownOf([{ ...SHORT, maxCharacters: 2 }], ["👍👍👍"])).toEqual({ shown: "👍👍", tripped: "short" });
  // Nor does what is held back let a character's half go.
  expect(shownOf([{ ...CARD, holdCharacters: 1 }], ["a👍"]).shown).toBe("a👍");
});

test("what the user says is checked before any model is called, and no later turn is told", async () => {
  const turn = await run({ team: checked({ input: [SHORT, CARD] }), message: "Hi", script: [reply("Hello.")] });
  expect(turn.end.finishReason).toBe(FinishReason.STOP);
  for (const userTexts of [[CARD_NUMBER], ["fine", "much too long"]]) {
    const refused = await run({ team: checked({ input: [SHORT, CARD] }), userTexts, script: [] });
    expect(refused.end).toEqual({ finishReason: FinishReason.GUARDRAIL, leavesNothing: true });
    expect(refused.events).toEqual([
      { case: "guardrailTripped", value: { guardrail: "short", stage: GuardrailStage.INPUT } },
    ]);
  }
});

test("what an agent says is checked as it streams: the rest is not said, and what was shown is the message", async () => {
  const script = [reply("Your card has the number ", "4111", "111111111111", " and more", " and more")];
  const { end, events, deltas } = await run({ team: checked({ output: [CARD] }), script });
  expect(end).toEqual({ finishReason: FinishReason.GUARDRAIL });
  expect(deltas.join("")).toBe("Your card");
  expect(events.map((event) => event.case)).toEqual([
    "agentStarted",
    ...deltas.map(() => "textDelta"),
    "messageCompleted",
    "guardrailTripped",
    "usageRecorded",
  ]);
  expect(events.find((event) => event.case === "messageCompleted")?.value.content).toBe("Your card");
  const tripped = events.find((event) => event.case === "guardrailTripped");
  expect(tripped?.value).toEqual({ guardrail: "no_cards", stage: GuardrailStage.OUTPUT });
});

test("a message that fails at once leaves none", async () => {
  const { end, events } = await run({ team: checked({ output: [CARD] }), script: [reply(CARD_NUMBER)] });
  expect(end.finishReason).toBe(FinishReason.GUARDRAIL);
  expect(events.map((event) => event.case)).toEqual(["agentStarted", "guardrailTripped", "usageRecorded"]);
});

test("questions to the user are checked as messages are", async () => {
  const team: TeamDefinition = { ...checked({ output: [CARD] }), agents: [{ ...ASSISTANT, asksPerson: true }] };
  const question = JSON.stringify({ question: `Is ${CARD_NUMBER} yours?` });
  const ask = asking({ id: "a", name: "ask_user", argumentsJson: question });
  const { end, events } = await run({ team, script: [ask] });
  expect(end).toEqual({ finishReason: FinishReason.GUARDRAIL });
  expect(JSON.stringify(events)).not.toContain("4111");
});

/** A text in pieces of the given lengths, then in twos. */
function pieces(text: string, lengths: readonly number[]): string[] {
  const cut: string[] = [];
  let place = 0;
  for (let index = 0; place < text.length; index++) {
    const length = lengths[index] ?? 2;
    cut.push(text.slice(place, place + length));
    place += length;
  }
  return cut;
}
