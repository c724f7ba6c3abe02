import { Code } from "@connectrpc/connect";
import { expect, test, vi } from "vitest";
import { FinishReason, TurnState } from "../../gen/parley/chat/v1/turn_pb.js";
import { expectRefusal, LEAKS, refusalOf } from "../rpc/refusals.ts";
import { threeWires } from "../rpc/wires.ts";
import { callerOf, expectInLog, spoken, turnIdOf, USER } from "./clients.ts";
import { startParts } from "./parts.ts";

// Redis dies amid turns and stays away for longer than the lease.

const unavailable = { code: Code.Unavailable, reason: "STORE_UNAVAILABLE" } as const;

test("turns end with UNAVAILABLE and their cursor, and nothing that was stored or delivered is lost", async () => {
  const { redis, startService, logOf } = await startParts();
  const service = await startService({ LEASE_MS: "2000" });
  const running = await Promise.all(
    threeWires.map(async (wire) => {
      const caller = callerOf(service, wire);
      const sessionId = await caller.createSession();
      await caller.say(sessionId, `I speak ${wire.name}`);
      const before = await caller.history(sessionId);
      return { caller, sessionId, before, reading: caller.stream(sessionId, "go on", "endless") };
    }),
  );
  for (const { reading } of running) await spoken(reading);
  await redis.kill();

  for (const { caller, sessionId, reading } of running) {
    const error = await refusalOf(reading.end.then((end) => Promise.reject(end)));
    const cursor = { turnId: turnIdOf(reading), lastSequence: reading.events.at(-1)?.sequence ?? 0n };
    expectRefusal(error, { ...unavailable, cursor });
    expect(JSON.stringify([error.rawMessage, ...error.metadata])).not.toMatch(LEAKS);
    // A deadline of the caller's own would end what hangs with another code.
    const soon = { timeoutMs: 10_000 };
    const refusals = await Promise.all(
      [
        caller.chat.chat({ sessionId, message: "are you there?", userId: USER }, soon),
        caller.sessions.getSession({ sessionId }, soon),
        caller.sessions.createSession({ userId: USER }, soon),
      ].map(refusalOf),
    );
    for (const refusal of refusals) expectRefusal(refusal, unavailable);
  }
  expect(await service.metric("parley_turns_in_flight")).toBe(0);

  await redis.restart();
  for (const { caller, sessionId, before, reading } of running) {
    await vi.waitFor(() => caller.sessions.getSession({ sessionId }), { timeout: 10_000 });
    expect(await caller.history(sessionId)).toEqual(before);
    expectInLog(reading, await logOf(turnIdOf(reading)));
    expect(await caller.say(sessionId, "and now?")).toContain("I speak");
    // The next turn has ended the one that was lost.
    const { turn } = await caller.chat.getTurn({ turnId: turnIdOf(reading) });
    expect(turn).toMatchObject({ state: TurnState.FINISHED, finishReason: FinishReason.ERROR });
    expectInLog(reading, await logOf(turnIdOf(reading)));
    expect(await caller.history(sessionId)).toHaveLength(before.length + 2);
  }
  expect(service.errorOutput()).toBe("");
});
