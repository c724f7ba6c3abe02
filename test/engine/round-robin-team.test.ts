import fc from "fast-check";
import { expect, test } from "vitest";
import { Role } from "../../gen/parley/chat/v1/message_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { ModelCallFailure } from "../../src/engine/model.ts";
import type { AgentDefinition, TeamDefinition } from "../../src/engine/team.ts";
import { ASSISTANT, asking, record, reply, run, type Scripted, TEAM, USAGE } from "./scripted-turn.ts";

const agent = (name: string): AgentDefinition => ({ ...ASSISTANT, name, systemMessage: `You are ${name}.` });
const [WRITER, CRITIC] = [agent("writer"), agent("critic")];

const DUO: TeamDefinition = { ...TEAM, kind: "round_robin", agents: [WRITER, CRITIC], maxRounds: 20 };

/** Who spoke, by completed message. */
const speakers = ({ events }: Awaited<ReturnType<typeof run>>) =>
  events.flatMap((event) => (event.case === "messageCompleted" ? [event.value.agent] : []));

test("agents speak one after the other until one mentions the termination text", async () => {
  const turn = await run({ team: DUO, script: [reply("A draft."), reply("Shorter."), reply("Draft. TERMINATE")] });
  expect(speakers(turn)).toEqual(["writer", "critic", "writer"]);
  expect(turn.end).toEqual({ finishReason: FinishReason.TERMINATED, termination: "TextMentionTermination" });
  expect(turn.content).toBe("Draft.");
  expect(turn.events.filter((event) => event.case === "agentStarted").map((event) => event.value.agent)).toEqual([
    "writer",
    "critic",
    "writer",
  ]);
});

test("each reads its own words as its own, and the others' under their names", async () => {
  const history = [record(Role.USER, "Earlier"), record(Role.ASSISTANT, "I said", "critic")];
  const turn = await run({
    team: DUO,
    history,
    message: "Write!",
    script: [reply("A draft."), reply("Shorter."), reply("TERMINATE")],
  });
  const [first, second, third] = turn.requests.map(({ messages }) => messages);
  const earlier = { role: "user", content: "Earlier" };
  expect(first).toEqual([
    { role: "system", content: "You are writer." },
    earlier,
    { role: "user", name: "critic", content: "I said" },
    { role: "user", content: "Write!" },
  ]);
  expect(second).toEqual([
    { role: "system", content: "You are critic." },
    earlier,
    { role: "assistant", content: "I said" },
    { role: "user", content: "Write!" },
    { role: "user", name: "writer", content: "A draft." },
  ]);
  expect(third?.slice(3)).toEqual([
    { role: "user", content: "Write!" },
    { role: "assistant", content: "A draft." },
    { role: "user", name: "critic", content: "Shorter." },
  ]);
});

test.each([
  ["messages of each agent", { maxConsecutiveAutoReply: 2 }, 4],
  ["model calls of the turn", { maxRounds: 3 }, 3],
])("a conversation that nobody ends is ended by the bound on %s", async (_, bounds, calls) => {
  const script = Array.from({ length: 10 }, (__, index) => reply(`${index}`));
  const turn = await run({ team: { ...DUO, ...bounds }, script });
  expect(turn.requests).toHaveLength(calls);
  expect(turn.end.finishReason).toBe(FinishReason.MAX_ROUNDS);
});

test("rounds of tool calls count as model calls, and only an answer hands the word on", async () => {
  const call = { id: "c1", name: "none", argumentsJson: "{}" };
  const turn = await run({
    team: { ...DUO, maxRounds: 4 },
    script: [asking(call), reply("A"), asking(call), reply("B")],
  });
  expect(speakers(turn)).toEqual(["writer", "critic"]);
  expect(turn.end.finishReason).toBe(FinishReason.MAX_ROUNDS);
});

test("what is left of the tokens decides whether the next one speaks", async () => {
  const usage = { ...USAGE, promptTokens: 900, completionTokens: 200 };
  const turn = await run({ team: DUO, maxTokens: 1_600, script: [{ ...reply("A"), usage }, reply("never")] });
  expect(speakers(turn)).toEqual(["writer"]);
  expect(turn.end.finishReason).toBe(FinishReason.TOKEN_BUDGET);
});

test("a message that does not fit alone is refused before any call", async () => {
  const turn = run({ team: DUO, script: [], message: "word ".repeat(4_000) });
  await expect(turn).rejects.toMatchObject({ reason: "TURN_TOKEN_BUDGET" });
});

test("an agent that is cut by its length, its filter or a stop ends the turn with what it said", async () => {
  const stop = new AbortController();
  const failure = new ModelCallFailure("CALL_CANCELLED", { model: "gpt-4", usage: USAGE });
  const ends: [Scripted, FinishReason, AbortController?][] = [
    [{ ...reply("Half"), ended: "length" }, FinishReason.TOKEN_BUDGET],
    [{ ...reply("Half"), ended: "content_filter" }, FinishReason.CONTENT_FILTER],
    [{ ...reply("Half"), failure, before: () => stop.abort() }, FinishReason.CANCELLED, stop],
  ];
  for (const [last, finishReason, stopping] of ends) {
    const turn = await run({ team: DUO, script: [reply("A"), last], ...(stopping && { stop: stopping }) });
    expect(turn.content).toBe("Half");
    expect(turn.end.finishReason).toBe(finishReason);
    expect(speakers(turn)).toEqual(["writer", "critic"]);
  }
});

test("whatever team and bounds: agents take turns, bounds hold, and text is what messages say", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        size: fc.integer({ min: 1, max: 4 }),
        maxRounds: fc.integer({ min: 1, max: 8 }),
        maxConsecutiveAutoReply: fc.integer({ min: 1, max: 3 }),
        endsAt: fc.integer({ min: 0, max: 14 }),
      }),
      async ({ size, maxRounds, maxConsecutiveAutoReply, endsAt }) => {
        const agents = Array.from({ length: size }, (_, index) => agent(`a${index}`));
        const team = {
          ...DUO,
          agents: agents as unknown as TeamDefinition["agents"],
          maxRounds,
          maxConsecutiveAutoReply,
        };
        const script = Array.from({ length: 20 }, (_, index) =>
          index === endsAt ? reply(`${index} TERMI`, "NATE") : reply(`${index} `, "words"),
        );
        const turn = await run({ team, script, maxTokens: 100_000 });
        const most = Math.min(maxRounds, size * maxConsecutiveAutoReply);
        const spoken = Math.min(most, endsAt + 1);
        expect(speakers(turn)).toEqual(Array.from({ length: spoken }, (_, index) => `a${index % size}`));
        expect(turn.end.finishReason).toBe(endsAt < most ? FinishReason.TERMINATED : FinishReason.MAX_ROUNDS);
        const messages = turn.events.flatMap((event) =>
          event.case === "messageCompleted" ? [event.value.content] : [],
        );
        expect(turn.deltas.join("")).toBe(messages.join(""));
      },
    ),
    { numRuns: 60 },
  );
});
