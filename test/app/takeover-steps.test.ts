import { beforeAll, describe, expect, test } from "vitest";
import { UNKNOWN_OUTCOME } from "../../src/engine/tool-call.ts";
import type { ServiceProcess } from "../support/service-process.ts";
import { bytesOf, callerOf, errorOf, expectInLog, expectWhole, finishOf, turnIdOf } from "./clients.ts";
import { shareParts } from "./parts.ts";

// The owner of a turn is killed between each two steps of DESIGN §4. The turn makes three model calls and a tool call:
// the model says something and asks for the tool (1), the tool is called (2), the model answers (3), the next agent ends it (4).

const parts = shareParts();
let survivor: ServiceProcess;

beforeAll(async () => {
  survivor = await parts().startReplica({ LEASE_MS: "1000" });
});

interface Death {
  readonly dies: string;
  readonly at: string;
  /** Model calls of the whole turn: 3, and one more where one was cut. */
  readonly modelCalls: number;
  /** Tool calls, where they may be repeated and where not. */
  readonly toolCalls: { readonly repeatable: number; readonly once: number };
  /** What the model is told of a call that may not be repeated. Default: its result. */
  readonly unknown?: true;
}

const once = { repeatable: 1, once: 1 } as const;
const deaths: readonly Death[] = [
  { dies: "when the turn has begun", at: "after begin 1", modelCalls: 3, toolCalls: once },
  { dies: "before a model call's first text", at: "before textDelta 1", modelCalls: 4, toolCalls: once },
  { dies: "amid a model call's text", at: "after textDelta 1", modelCalls: 4, toolCalls: once },
  { dies: "before a model call's result", at: "before model 1", modelCalls: 4, toolCalls: once },
  { dies: "after a model call's result, the tool call prepared", at: "after model 1", modelCalls: 3, toolCalls: once },
  { dies: "before the tool call is marked started", at: "before started 1", modelCalls: 3, toolCalls: once },
  {
    dies: "after the tool call is marked started",
    at: "after started 1",
    modelCalls: 3,
    toolCalls: { repeatable: 1, once: 0 },
    unknown: true,
  },
  {
    dies: "before the tool call's result",
    at: "before tool 1",
    modelCalls: 3,
    toolCalls: { repeatable: 2, once: 1 },
    unknown: true,
  },
  { dies: "after the tool call's result, the model call prepared", at: "after tool 1", modelCalls: 3, toolCalls: once },
  { dies: "before the second model call's result", at: "before model 2", modelCalls: 4, toolCalls: once },
  { dies: "after the second model call's result", at: "after model 2", modelCalls: 3, toolCalls: once },
  { dies: "before the turn's commit", at: "before commit 1", modelCalls: 4, toolCalls: once },
];

/** A tool whose calls may not be repeated, and, where that makes a difference, one whose calls may. */
const cases = deaths.flatMap((death) => [
  { ...death, team: "pay", says: "paid", repeatable: false },
  ...(/started|tool/.test(death.at) ? [{ ...death, team: "look_up", says: "found", repeatable: true }] : []),
]);

describe.concurrent("a turn whose owner is killed", () => {
  test.each(cases)("$dies ($team), is ended by another process, and nothing is done twice", async (death) => {
    const { team, says, repeatable } = death;
    const { startReplica, model, toolCalls, logOf } = parts();
    const owner = await startReplica({ LEASE_MS: "1000", DIE_AT: death.at });
    const message = `${team}: ${death.at}`;
    const cut = callerOf(owner).stream("", message, team);
    await errorOf(cut);
    expect(await owner.ended).toMatchObject({ signal: "SIGKILL" });
    const other = callerOf(survivor);
    const turnId = turnIdOf(cut) || (await newestTurn(message));

    const reading = other.resume(turnId);
    expect(await reading.end).toBeUndefined();
    const messages = expectWhole(reading.events);
    expectInLog(reading, await logOf(turnId));
    // What the first reader was told stands.
    expect(cut.events.map(bytesOf)).toEqual(reading.events.slice(0, cut.events.length).map(bytesOf));
    const spoken = "piece 0 piece 1 piece 2 ";
    expect(messages.slice(0, 2)).toEqual([spoken, spoken]);
    expect(messages).toHaveLength(3);
    expect(finishOf(reading.events)).toBe(2);

    const calls = model.calls.filter(({ messages: sent }) => sent.some(({ content }) => content === message));
    expect(calls).toHaveLength(death.modelCalls);
    const started = reading.events.flatMap(({ event }) => (event.case === "toolCallStarted" ? [event.value] : []));
    const completed = reading.events.flatMap(({ event }) => (event.case === "toolCallCompleted" ? [event.value] : []));
    expect([started.length, completed.length]).toEqual([1, 1]);
    expect(started[0]?.toolCallId).toBe(completed[0]?.toolCallId);
    const unknown = death.unknown === true && !repeatable;
    expect(completed[0]).toMatchObject(
      unknown ? { outcome: 4, content: UNKNOWN_OUTCOME } : { outcome: 1, content: says },
    );
    // The model was told the same, in each call behind it.
    const told = calls.flatMap(({ messages: sent }) => sent.filter(({ role }) => role === "tool"));
    expect(new Set(told.map(({ content }) => content))).toEqual(new Set([completed[0]?.content]));
    const made = (await toolCalls()).filter((line) => line.includes(turnId));
    expect(made).toHaveLength(repeatable ? death.toolCalls.repeatable : death.toolCalls.once);
    // A repeated call is told by its id.
    expect(new Set(made).size).toBeLessThanOrEqual(1);

    // Text is all that is voided, and only where a call was made again.
    const restarts = reading.events.filter(({ event }) => event.case === "stepRestarted");
    for (const { sequence, event } of restarts) {
      if (event.case !== "stepRestarted") continue;
      const { discardTextAfterSequence: kept } = event.value;
      const voided = reading.events.filter((one) => one.sequence > kept && one.sequence < sequence);
      expect(new Set(voided.map(({ event: { case: name } }) => name))).toEqual(new Set(["textDelta"]));
    }
    expect(restarts.length).toBeLessThanOrEqual(death.modelCalls - 3);
    const sessionId = (await other.chat.getTurn({ turnId })).turn?.sessionId ?? "";
    expect(await other.history(sessionId)).toEqual([message, ...messages]);
  });
});

/** The turn that a message began, where its caller was told nothing. */
async function newestTurn(message: string): Promise<string> {
  return await parts().ask(async (redis) => {
    for (const key of await redis.keys("*:turn:*")) {
      if ((await redis.hgetBuffer(key, "record"))?.includes(message)) return key.replace(/^.*:turn:/, "");
    }
    throw new Error("there is no such turn");
  });
}
