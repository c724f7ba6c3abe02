import { expect, test } from "vitest";
import { GuardrailStage } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { threeWires } from "../rpc/wires.ts";
import { eventually } from "../support/eventually.ts";
import { useTestApp } from "../support/use-app.ts";
import { callerOf, expectWhole, finishOf, type Reading, USER } from "./clients.ts";

const app = useTestApp({
  yaml: `
agents:
  echo: { model: gpt-4o }
  guide: { model: sim-tools }
  talker: { model: sim-5000x30 }
teams:
  careful:
    agent: echo
    guardrails:
      input:
        - { name: short, max_characters: 500 }
        - { name: polite, pattern: '\\bdamn\\b', ignore_case: true }
      output:
        - { name: no_cards, pattern: '\\d{16}' }
  asking:
    agent: guide
    human_input: true
    guardrails: { input: [{ name: polite, pattern: damn }] }
  endless:
    agent: talker
    guardrails: { output: [{ name: brief, max_characters: 30 }] }
`,
});

function trippedIn({ events }: Reading) {
  return events.flatMap(({ event }) =>
    event.case === "guardrailTripped" ? [[event.value.guardrail, event.value.stage]] : [],
  );
}

async function counted(guardrail: string, stage: string): Promise<number> {
  const lines = (await app.metrics()).split("\n");
  const labels = `guardrail="${guardrail}",stage="${stage}"`;
  const line = lines.find((one) => one.startsWith("parley_guardrails_tripped_total") && one.includes(labels));
  return Number(line?.split(" ").at(-1));
}

test.each(threeWires)("on $name, a message that fails a check calls no model and is in no history", async (wire) => {
  const caller = callerOf(app, wire);
  const sessionId = await caller.createSession();
  const [before, calls] = [await counted("polite", "INPUT"), app.simulated.callCount];
  const refused = caller.stream(sessionId, "DAMN you", "careful");
  expect(await refused.end).toBeUndefined();
  expectWhole(refused.events);
  expect(finishOf(refused.events)).toBe(FinishReason.GUARDRAIL);
  expect(trippedIn(refused)).toEqual([["polite", GuardrailStage.INPUT]]);
  expect(app.simulated.callCount).toBe(calls);
  expect(await caller.history(sessionId)).toEqual([]);
  await eventually(async () => expect(await counted("polite", "INPUT")).toBe(before + 1));

  const unary = await caller.chat.chat({ sessionId, message: "x".repeat(501), userId: USER, agentTeam: "careful" });
  expect([unary.finishReason, unary.response]).toEqual([FinishReason.GUARDRAIL, ""]);
  expect(await caller.say(sessionId, "hello")).toContain("hello");
});

test("a stream that fails a check amid it ends with a typed reason, and the model is told to stop", async () => {
  const caller = callerOf(app);
  const reading = caller.stream("", "Talk.", "endless");
  expect(await reading.end).toBeUndefined();
  const [message] = expectWhole(reading.events);
  expect([message, finishOf(reading.events)]).toEqual(["piece 0 piece 1 piece 2 piece ", FinishReason.GUARDRAIL]);
  expect(trippedIn(reading)).toEqual([["brief", GuardrailStage.OUTPUT]]);
  await eventually(() => expect(app.simulated.calls.at(-1)?.state).toBe("closed_by_client"));
  const usage = reading.events.flatMap(({ event }) => (event.case === "usageRecorded" ? [event.value] : []));
  expect(usage).toHaveLength(1);
  expect(usage[0]?.tokenUsage?.completionTokens).toBeLessThan(100);
});

test("what matches is not shown in part, and what was said before it stays", async () => {
  const caller = callerOf(app);
  const sessionId = await caller.createSession();
  const reading = caller.stream(sessionId, "my card is 4111 no, 4111111111111111", "careful");
  expect(await reading.end).toBeUndefined();
  const messages = expectWhole(reading.events);
  expect(trippedIn(reading)).toEqual([["no_cards", GuardrailStage.OUTPUT]]);
  expect(reading.text()).not.toMatch(/\d{5}/);
  expect((await caller.history(sessionId)).slice(1)).toEqual(messages);
});

test("an answer that fails a check leaves the question open", async () => {
  const caller = callerOf(app);
  const sessionId = await caller.createSession();
  const say = async (message: string): Promise<Reading> => {
    const reading = caller.stream(sessionId, message, "asking");
    expect(await reading.end).toBeUndefined();
    expectWhole(reading.events);
    return reading;
  };
  expect(finishOf((await say('{"question":"Which city?"}')).events)).toBe(FinishReason.INPUT_REQUIRED);
  const calls = app.simulated.callCount;
  const refused = await say("damn Rome");
  expect([trippedIn(refused), finishOf(refused.events), app.simulated.callCount]).toEqual([
    [["polite", GuardrailStage.INPUT]],
    FinishReason.GUARDRAIL,
    calls,
  ]);
  const going = await say("Rome");
  expect([finishOf(going.events), going.text()]).toEqual([FinishReason.STOP, expect.stringContaining("Rome")]);
  expect(await caller.history(sessionId)).toEqual(['{"question":"Which city?"}', "Which city?", "Rome", going.text()]);
});
