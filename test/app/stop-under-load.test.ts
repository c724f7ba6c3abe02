import { Code, ConnectError } from "@connectrpc/connect";
import { expect, test, vi } from "vitest";
import { expectRefusal, refusalOf } from "../rpc/refusals.ts";
import { threeWires } from "../rpc/wires.ts";
import { callerOf, expectInLog, spoken, turnIdOf } from "./clients.ts";
import { SLOW_REPLY, startParts } from "./parts.ts";

// SIGTERM while many turns run and others wait.

test("turns that run are read to their end, those that wait are sent elsewhere, and the other process has it all", async () => {
  const { startTwo, logOf } = await startParts();
  const [first, second] = await startTwo({ DRAIN_MS: "60000" });
  const other = callerOf(second);
  const running = await Promise.all(
    Array.from({ length: 24 }, async (_, index) => {
      const caller = callerOf(first, threeWires[index % 3]);
      const sessionId = await other.createSession();
      return { caller, sessionId, reading: caller.stream(sessionId, `message ${index}`, "slow") };
    }),
  );
  for (const { reading } of running) await spoken(reading);
  const waiting = running.slice(0, 3).map(({ caller, sessionId }) => caller.stream(sessionId, "me next", "quick"));
  for (const { places } of waiting) await vi.waitFor(() => expect(places).toEqual([1]));

  first.send("SIGTERM");
  for (const { end } of waiting) {
    const refusal = await refusalOf(end.then((how) => Promise.reject(how)));
    expectRefusal(refusal, { code: Code.Unavailable, reason: "DRAINING" });
  }
  for (const { reading, sessionId } of running) {
    expect(await reading.end).toBeUndefined();
    expect(reading.text()).toBe(SLOW_REPLY);
    const log = await logOf(turnIdOf(reading));
    expectInLog(reading, log);
    expect(reading.events).toHaveLength(log.length);
    expect(await other.say(sessionId, "do you remember?")).toContain("message");
  }
  expect(await first.ended).toEqual({ code: 0, signal: null });
  expect(first.errorOutput()).toBe("");
  // Not lost, not failed: ended.
  expect(first.logged({ msg: "turn ended" })).toHaveLength(24);
  const late = await callerOf(first)
    .say("", "too late")
    .catch((error: unknown) => error);
  expect(late).toBeInstanceOf(ConnectError);
});

test("turns that outlast the drain end with their cursor, and their sessions go on elsewhere after the lease", async () => {
  const { startTwo, logOf } = await startParts();
  const [first, second] = await startTwo({ DRAIN_MS: "300", LEASE_MS: "2000" });
  const other = callerOf(second);
  const running = await Promise.all(
    threeWires.map(async (wire) => {
      const sessionId = await other.createSession();
      return { sessionId, reading: callerOf(first, wire).stream(sessionId, "tell me all", "endless") };
    }),
  );
  for (const { reading } of running) await spoken(reading);
  first.send("SIGTERM");
  for (const { sessionId, reading } of running) {
    const refusal = await refusalOf(reading.end.then((how) => Promise.reject(how)));
    const cursor = { turnId: turnIdOf(reading), lastSequence: reading.events.at(-1)?.sequence ?? 0n };
    expectRefusal(refusal, { code: Code.Unavailable, reason: "DRAINING", cursor });
    expectInLog(reading, await logOf(cursor.turnId));
    expect(await other.say(sessionId, "hello")).toContain("hello");
    expectInLog(reading, await logOf(cursor.turnId));
  }
  expect(await first.ended).toEqual({ code: 0, signal: null });
});
