import { Code, ConnectError } from "@connectrpc/connect";
import { expect, test, vi } from "vitest";
import { FinishReason, TurnState } from "../../gen/parley/chat/v1/turn_pb.js";
import { expectRefusal, refusalOf } from "../rpc/refusals.ts";
import { callerOf, expectInLog, spoken, turnIdOf } from "./clients.ts";
import { startParts } from "./parts.ts";

// A process with a running turn is lost: killed, or standing still for longer than its lease.

const lease = { LEASE_MS: "2000" };

test("a session goes on on the other process when its own was killed, and the turn that was cut has its end", async () => {
  const { startTwo, logOf } = await startParts();
  const [first, second] = await startTwo(lease);
  const [a, b] = [callerOf(first), callerOf(second)];
  const sessionId = await a.createSession();
  await a.say(sessionId, "my name is Ada");
  const before = await b.history(sessionId);
  const cut = a.stream(sessionId, "tell me all", "endless");
  await spoken(cut);
  await first.kill();
  expect(await cut.end).toBeInstanceOf(ConnectError);
  const turnId = turnIdOf(cut);
  expectInLog(cut, await logOf(turnId));
  expect((await b.chat.getTurn({ turnId })).turn?.state).toBe(TurnState.RUNNING);

  // Who comes waits for the lease, and is told so.
  const next = b.stream(sessionId, "what is my name?", "quick");
  expect(await next.end).toBeUndefined();
  expect(next.places).toEqual([1]);
  expect(next.text()).toContain("my name is Ada");

  const log = await logOf(turnId);
  expectInLog(cut, log);
  expect(log.at(-1)).toMatchObject({
    event: { event: { case: "turnCompleted", value: { finishReason: FinishReason.ERROR } } },
    failure: { reason: "TURN_LOST" },
  });
  expect(log.filter(({ event }) => event?.event.case === "turnCompleted")).toHaveLength(1);
  expect((await b.chat.getTurn({ turnId })).turn).toMatchObject({
    state: TurnState.FINISHED,
    finishReason: FinishReason.ERROR,
    lastSequence: BigInt(log.length),
  });
  expect(await b.history(sessionId)).toEqual([...before, "what is my name?", next.text()]);
});

test("a process that stood still and wakes up changes nothing, and its reader learns that the turn is lost", async () => {
  const { startTwo, logOf } = await startParts();
  const [first, second] = await startTwo(lease);
  const [a, b] = [callerOf(first), callerOf(second)];
  const sessionId = await a.createSession();
  const stale = a.stream(sessionId, "tell me all", "endless");
  await spoken(stale);
  const turnId = turnIdOf(stale);
  first.send("SIGSTOP");
  await b.say(sessionId, "my name is Ada");
  const [history, log] = [await b.history(sessionId), await logOf(turnId)];
  // The newest owner is at work while the old one wakes up.
  const running = b.stream(sessionId, "and then?", "slow");
  await spoken(running);
  first.send("SIGCONT");

  const error = await refusalOf(stale.end.then((end) => Promise.reject(end)));
  expectRefusal(error, { code: Code.Aborted, reason: "TURN_LOST" });
  expectInLog(stale, log);
  expect(stale.events).toHaveLength(log.length);
  await vi.waitFor(() => expect(first.logged({ turn_id: turnId, level: "error" })).toHaveLength(1));
  expect(await running.end).toBeUndefined();
  expect(await logOf(turnId)).toEqual(log);
  expectInLog(running, await logOf(turnIdOf(running)));
  expect(await a.history(sessionId)).toEqual([...history, "and then?", running.text()]);
  expect(await a.say(sessionId, "is all well?")).toContain("my name is Ada");
});
