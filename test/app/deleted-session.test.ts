import { Code } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { expectRefusal, refusalOf } from "../rpc/refusals.ts";
import { threeWires } from "../rpc/wires.ts";
import { eventually } from "../support/eventually.ts";
import { callerOf, spoken, turnIdOf } from "./clients.ts";
import { startParts } from "./parts.ts";

// A session is deleted while a turn of it runs and another one waits.

describe.each(["the same process", "the other process"])("by %s", (by) => {
  test("readers get ABORTED, who waits NOT_FOUND, and nothing of the session comes back", async () => {
    const { startTwo, logOf, model, redis } = await startParts();
    const [first, second] = await startTwo();
    const deleter = callerOf(by === "the same process" ? first : second);
    for (const wire of threeWires) {
      const caller = callerOf(first, wire);
      const sessionId = await caller.createSession();
      await caller.say(sessionId, "my name is Ada");
      const running = caller.stream(sessionId, "tell me all", "endless");
      await spoken(running);
      const waiting = caller.stream(sessionId, "and me?", "quick");
      await eventually(() => expect(waiting.places).toEqual([1]));

      await deleter.sessions.deleteSession({ sessionId });

      const error = await refusalOf(running.end.then((end) => Promise.reject(end)));
      // No cursor: there is nothing to read on.
      expectRefusal(error, { code: Code.Aborted, reason: "SESSION_DELETED" });
      const refusal = await refusalOf(waiting.end.then((end) => Promise.reject(end)));
      expectRefusal(refusal, { code: Code.NotFound, reason: "SESSION_NOT_FOUND" });
      // The model is not let talk on to nobody.
      await eventually(() => expect(model.calls.at(-1)?.state).toBe("closed_by_client"));
      const turnId = turnIdOf(running);
      await eventually(() => expect(first.logged({ turn_id: turnId, reason: "SESSION_DELETED" })).not.toEqual([]));
      expect(await logOf(turnId)).toEqual([]);
      expectRefusal(await refusalOf(caller.chat.getTurn({ turnId })), {
        code: Code.NotFound,
        reason: "TURN_NOT_FOUND",
      });
      // What it has spent is spent.
      const left = (await redis.keys(`*${sessionId}*`)).filter((key) => !key.startsWith("{a:default}:"));
      expect(left).toEqual([]);
    }
    await eventually(async () => expect(await first.metric("parley_turns_in_flight")).toBe(0));
    expect(await first.metric("parley_turns_queued")).toBe(0);
    expect(await first.metric("parley_active_sessions")).toBe(0);
  });

  test("a turn that says nothing learns of it too, by its lease", async () => {
    const { startTwo, model } = await startParts();
    const [first, second] = await startTwo({ LEASE_MS: "900" });
    const sessionId = await callerOf(first).createSession();
    const running = callerOf(first).stream(sessionId, "hello?", "silent");
    await eventually(() => expect(model.callCount).toBe(1));
    await callerOf(by === "the same process" ? first : second).sessions.deleteSession({ sessionId });
    const error = await refusalOf(running.end.then((end) => Promise.reject(end)));
    expectRefusal(error, { code: Code.Aborted, reason: "SESSION_DELETED" });
    await eventually(() => expect(model.calls.at(-1)?.state).toBe("closed_by_client"));
  });

  test("a session that gets the id anew is not touched by the turn of the old one", async () => {
    const { startTwo } = await startParts();
    const [first, second] = await startTwo();
    const owner = callerOf(first);
    const deleter = callerOf(by === "the same process" ? first : second);
    const sessionId = await owner.createSession();
    const running = owner.stream(sessionId, "tell me all", "endless");
    await spoken(running);
    await deleter.sessions.deleteSession({ sessionId });
    await deleter.sessions.createSession({ sessionId, userId: "u2" });
    const error = await refusalOf(running.end.then((end) => Promise.reject(end)));
    expectRefusal(error, { code: Code.Aborted, reason: "SESSION_DELETED" });
    const { session } = await owner.sessions.getSession({ sessionId });
    expect(session).toMatchObject({ userId: "u2", messageCount: 0n, tokenUsage: { totalTokens: 0 } });
  });
});
