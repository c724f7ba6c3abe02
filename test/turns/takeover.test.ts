import fc from "fast-check";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { CallOutcome, type UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import type { AgentDefinition, TeamDefinition } from "../../src/engine/team.ts";
import type { TerminationDefinition } from "../../src/engine/termination.ts";
import { newTurnRef } from "../../src/turns/turn-id.ts";
import { ASSISTANT, TEAM } from "../engine/scripted-turn.ts";
import { type Cut, expectBilled, expectWhole, type Line, type Play, runInPieces, standing } from "./turn-in-pieces.ts";

// A turn that several owners run, each to its death, is the turn that one owner runs.

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "performance"] });
  vi.setTimerTickMode("nextTimerAsync");
});
afterEach(() => {
  vi.useRealTimers();
});

const words = fc.oneof(
  { weight: 3, arbitrary: fc.array(fc.constantFrom("one ", "two ", "three. ", "TERM", " "), { maxLength: 3 }) },
  // A selector's choice, where one is asked for.
  fc.constantFrom("agent0", "agent1", "agent2").map((name) => [name]),
);
const line: fc.Arbitrary<Line> = fc.record({
  pieces: words,
  // Of the tool that must not be called twice often: few cuts fall amid a call of it.
  calls: fc.array(
    fc.constantFrom("idempotent", "once", "once", "missing", "transfer_to_agent0", "transfer_to_agent1"),
    { maxLength: 3 },
  ),
});
const LAST: Line = { pieces: ["That is ", "all. TERMI", "NATE"], calls: [] };

const team: fc.Arbitrary<TeamDefinition> = fc
  .record({
    kind: fc.constantFrom("single" as const, "round_robin" as const, "selector" as const, "swarm" as const),
    size: fc.integer({ min: 1, max: 3 }),
    maxRounds: fc.integer({ min: 2, max: 9 }),
    // What lost calls have used differs from owner to owner, as time does: neither is among these.
    termination: fc.constantFrom<(TerminationDefinition | undefined)[]>(undefined, undefined, {
      kind: "or",
      conditions: [
        { kind: "max_messages", limit: 4 },
        {
          kind: "and",
          conditions: [
            { kind: "text_mention", text: "two" },
            { kind: "source_match", sources: ["agent1"] },
          ],
        },
      ],
    }),
  })
  .map(({ kind, size, maxRounds, termination }) => {
    const agents = Array.from(
      { length: kind === "single" ? 1 : size },
      (_, index): AgentDefinition => ({
        ...ASSISTANT,
        name: `agent${index}`,
        contextWindowTokens: 1_000_000,
        tools: ["idempotent", "once"],
        ...(kind === "swarm" ? { handoffs: [0, 1].map((to) => ({ to: `agent${to}`, description: "" })) } : {}),
      }),
    );
    const selector = {
      model: "gpt-4",
      contextWindowTokens: 1_000_000,
      prompt: "{history} {participants}?",
      maxAttempts: 2,
      allowRepeatSpeaker: false,
    };
    return {
      ...TEAM,
      name: "t",
      kind,
      agents: agents as unknown as TeamDefinition["agents"],
      maxRounds,
      ...(kind === "selector" ? { selector } : {}),
      ...(termination === undefined ? {} : { termination }),
    };
  });

const play: fc.Arbitrary<Play> = fc.record({
  team,
  lines: fc.array(line, { maxLength: 5 }).map((lines) => [...lines, LAST]),
});
const cuts: fc.Arbitrary<Cut[]> = fc.array(
  fc.record({ write: fc.integer({ min: 1, max: 12 }), written: fc.boolean(), settles: fc.boolean() }),
  { minLength: 1, maxLength: 5 },
);

/** What both logs must have alike: all but what is paid, and what is not known of tool calls. */
function comparable(log: Parameters<typeof standing>[0]): Readonly<Record<string, unknown>>[] {
  return standing(log).flatMap(({ case: name, value }): Readonly<Record<string, unknown>>[] => {
    if (name === "usageRecorded") return [];
    if (name === "toolCallCompleted") return [{ name, toolCallId: value.toolCallId, tool: value.tool }];
    if (name === "turnCompleted") return [{ name, finishReason: value.finishReason, termination: value.termination }];
    return [{ name, value }];
  });
}

/** The calls of a turn that were paid for and have ended well, by their numbers in the turn. */
function paidCalls(charges: readonly UsageRecord[]): Set<string | undefined> {
  const ended = charges.filter(({ outcome }) => outcome === CallOutcome.OK);
  return new Set(ended.map(({ recordId }) => recordId.split("/").at(-2)));
}

test("cut anywhere, its log is the log of one piece, and no call that has ended is made again", async () => {
  const seen = { takeovers: 0, restarts: 0, unknown: 0, lostUsage: 0, lostUsageKnown: 0, selected: 0, handoffs: 0 };
  await fc.assert(
    fc.asyncProperty(play, cuts, async (drawn, drawnCuts) => {
      const { turnId } = newTurnRef({ tenant: "acme", sessionId: "s1" });
      const whole = await runInPieces(drawn, { cuts: [], turnId });
      expectWhole(whole.log, whole.turn.finishReason);
      expectBilled(whole);
      const prompts = whole.owners[0]?.prompts ?? [];

      const cut = await runInPieces(drawn, { cuts: drawnCuts, turnId, known: whole.known });
      expectWhole(cut.log, whole.turn.finishReason);
      expectBilled(cut);
      expect(comparable(cut.log)).toEqual(comparable(whole.log));
      expect(paidCalls(cut.charges)).toEqual(paidCalls(whole.charges));
      expect(cut.messages.map(({ messageId, content, agent }) => [messageId, content, agent])).toEqual(
        whole.messages.map(({ messageId, content, agent }) => [messageId, content, agent]),
      );
      for (const owner of cut.owners) {
        // It begins with the first call that has not ended, and goes on from there.
        const { models } = owner.finished;
        expect(owner.prompts).toEqual(prompts.slice(models, models + owner.prompts.length));
      }
      const toolCalls = cut.owners.flatMap((owner) => owner.tools);
      const once = toolCalls.filter((call) => call.startsWith("once "));
      expect(new Set(once).size).toBe(once.length);
      expectNoneRepeated(cut.owners);
      const outcomes = cut.log.flatMap(({ event }) =>
        event?.event.case === "toolCallCompleted" && event.event.value.tool === "idempotent"
          ? [event.event.value.outcome]
          : [],
      );
      expect(outcomes).not.toContain(ToolOutcome.UNKNOWN);
      seen.takeovers += cut.owners.length - 1;
      // Each text that was void was paid for, beside the calls that the turn takes, and that is recorded.
      const again = cut.charges.length - whole.charges.length;
      const restarts = cut.log.filter(({ event }) => event?.event.case === "stepRestarted").length;
      expect(again).toBeGreaterThanOrEqual(restarts);
      seen.restarts += restarts;
      const lost = cut.charges.filter(({ usageSource }) => usageSource === UsageSource.HOLD_MAXIMUM).length;
      seen.lostUsage += lost;
      seen.lostUsageKnown += again - lost;
      for (const { event } of cut.log) {
        if (event?.event.case === "toolCallCompleted" && event.event.value.outcome === ToolOutcome.UNKNOWN)
          seen.unknown++;
        if (cut.owners.length === 1) continue;
        if (event?.event.case === "speakerSelected") seen.selected++;
        if (event?.event.case === "handoff") seen.handoffs++;
      }
    }),
    { numRuns: 300 },
  );
  // The cases that matter have occurred. Of the rarest, `unknown`, 48 are seen on average: five or fewer once in 10^14.
  for (const count of Object.values(seen)) expect(count).toBeGreaterThan(5);
  expect(seen.takeovers).toBeGreaterThan(100);
});

test("cut and then stopped, it ends with what was said, and makes no further call", async () => {
  const reasons = [FinishReason.CANCELLED, FinishReason.INTERRUPTED, FinishReason.ROLLED_BACK] as const;
  let stopped = 0;
  await fc.assert(
    fc.asyncProperty(play, cuts, fc.constantFrom(...reasons), async (drawn, drawnCuts, reason) => {
      const { turnId } = newTurnRef({ tenant: "acme", sessionId: "s1" });
      const whole = await runInPieces(drawn, { cuts: [], turnId });
      const cut = await runInPieces(drawn, { cuts: drawnCuts, turnId, known: whole.known, stopBefore: reason });
      // Nothing is left to be stopped where the first owner has written the end, or all calls but for it.
      expectWhole(cut.log, cut.turn.finishReason);
      expectBilled(cut);
      const [, ...later] = cut.owners;
      if (later.length === 0) return;
      if (cut.turn.finishReason === reason) stopped++;
      for (const owner of later) expect([owner.prompts, owner.tools]).toEqual([[], []]);
      const said = cut.messages.slice(1).map(({ content }) => content);
      const inLog = standing(cut.log).flatMap(({ case: name, value }) =>
        name === "messageCompleted" ? [value.content] : [],
      );
      if (cut.turn.finishReason === FinishReason.ROLLED_BACK) expect(cut.messages).toEqual([]);
      else expect(said).toEqual(inLog.filter((content) => content !== ""));
    }),
    { numRuns: 150 },
  );
  expect(stopped).toBeGreaterThan(50);
});

test("stopped at any moment by somebody else, it ends with what was said: one more piece of text at most", async () => {
  let stopped = 0;
  const stop = fc.record({
    owner: fc.integer({ min: 0, max: 2 }),
    write: fc.integer({ min: 1, max: 8 }),
    reason: fc.constantFrom(FinishReason.CANCELLED as const, FinishReason.DEADLINE as const),
  });
  await fc.assert(
    fc.asyncProperty(play, cuts, stop, async (drawn, drawnCuts, stopAt) => {
      const { turnId } = newTurnRef({ tenant: "acme", sessionId: "s1" });
      const { known } = await runInPieces(drawn, { cuts: [], turnId });
      const pieces = await runInPieces(drawn, { cuts: drawnCuts, turnId, known, stopAt });
      const { log, turn, messages, stoppedAfter } = pieces;
      expectWhole(log, turn.finishReason);
      expectBilled(pieces);
      if (stoppedAfter === undefined) return;
      if (turn.finishReason === stopAt.reason) stopped++;
      const later = log.filter(({ event }) => event !== undefined && event.sequence > stoppedAfter);
      expect(later.filter(({ event }) => event?.event.case === "textDelta").length).toBeLessThanOrEqual(1);
      const said = standing(log).flatMap(({ case: name, value }) =>
        name === "messageCompleted" ? [value.content] : [],
      );
      expect(messages.slice(1).map(({ content }) => content)).toEqual(said.filter((content) => content !== ""));
    }),
    { numRuns: 150 },
  );
  expect(stopped).toBeGreaterThan(20);
});

test("answers of the store that are lost change nothing", async () => {
  await fc.assert(
    fc.asyncProperty(
      play,
      cuts,
      fc.uniqueArray(fc.integer({ min: 1, max: 20 }), { minLength: 1 }),
      async (drawn, drawnCuts, lostAnswers) => {
        const { turnId } = newTurnRef({ tenant: "acme", sessionId: "s1" });
        const whole = await runInPieces(drawn, { cuts: [], turnId });
        const cut = await runInPieces(drawn, { cuts: drawnCuts, turnId, known: whole.known, lostAnswers });
        expectWhole(cut.log, whole.turn.finishReason);
        expect(comparable(cut.log)).toEqual(comparable(whole.log));
        expectBilled(cut);
        expect(paidCalls(cut.charges)).toEqual(paidCalls(whole.charges));
        expect(cut.messages.map(({ messageId }) => messageId)).toEqual(
          whole.messages.map(({ messageId }) => messageId),
        );
      },
    ),
    { numRuns: 60 },
  );
});

/** Tool calls whose end stands in the journal when an owner begins are none of its calls. */
function expectNoneRepeated(owners: Awaited<ReturnType<typeof runInPieces>>["owners"]): void {
  for (const [index, owner] of owners.entries()) {
    const ended = owners.slice(0, index).flatMap(({ tools }) => tools);
    const repeated = owner.tools.filter((call) => ended.includes(call));
    // Only the call that was cut may be made again: one per owner.
    expect(repeated.length).toBeLessThanOrEqual(1);
  }
}
