import { Code } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { refusalOf } from "../rpc/refusals.ts";
import { eventually } from "../support/eventually.ts";
import { callerOf, expectInLog, type Reading, turnIdOf, USER } from "./clients.ts";
import { startParts } from "./parts.ts";

// Turns of one session that come to two processes.

test("run one after another in the order that they came, and who waits is told its place", async () => {
  const { startTwo, logOf, model } = await startParts();
  const [first, second] = await startTwo();
  const [a, b] = [callerOf(first), callerOf(second)];
  const sessionId = await a.createSession();
  const running = a.stream(sessionId, "turn 0", "slow");
  await eventually(() => expect(running.events).not.toEqual([]));
  const waiting: Reading[] = [];
  for (const [index, caller] of [b, a, b, a].entries()) {
    const reading = caller.stream(sessionId, `turn ${index + 1}`, "quick");
    waiting.push(reading);
    // Has its place before the next one comes.
    await eventually(() => expect(reading.places).toEqual([index + 1]));
  }
  await eventually(async () => expect(await second.metric("parley_turns_queued")).toBe(2));

  for (const reading of [running, ...waiting]) {
    expect(await reading.end).toBeUndefined();
    expectInLog(reading, await logOf(turnIdOf(reading)));
  }
  expect(running.places).toEqual([]);
  for (const { places } of waiting) expect(places).toEqual(places.toSorted((x, y) => y - x));
  const history = await a.history(sessionId);
  expect(history.filter((_, index) => index % 2 === 0)).toEqual([0, 1, 2, 3, 4].map((index) => `turn ${index}`));
  // Each turn knew all that came before it.
  const asked = model.calls.slice(-4).map(({ messages }) => messages.filter(({ role }) => role === "user").length);
  expect(asked).toEqual([2, 3, 4, 5]);
  expect(await first.metric("parley_turns_queued")).toBe(0);
  expect(await second.metric("parley_turns_queued")).toBe(0);
});

test("one that goes away while it waits makes room for those behind it", async () => {
  const { startTwo } = await startParts();
  const [first, second] = await startTwo();
  const [a, b] = [callerOf(first), callerOf(second)];
  const sessionId = await a.createSession();
  const running = a.stream(sessionId, "turn 0", "slow");
  await eventually(() => expect(running.events).not.toEqual([]));
  const gone = b.chat.chat({ sessionId, message: "never", userId: USER }, { timeoutMs: 300 });
  expect((await refusalOf(gone)).code).toBe(Code.DeadlineExceeded);
  const next = b.stream(sessionId, "turn 1", "quick");
  expect(await next.end).toBeUndefined();
  expect(next.places).toEqual([1]);
  expect((await a.history(sessionId)).filter((_, index) => index % 2 === 0)).toEqual(["turn 0", "turn 1"]);
});
