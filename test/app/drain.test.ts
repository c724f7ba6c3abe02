import { Code } from "@connectrpc/connect";
import { beforeAll, expect, test } from "vitest";
import { expectRefusal } from "../rpc/refusals.ts";
import { threeWires } from "../rpc/wires.ts";
import type { ServiceProcess } from "../support/service-process.ts";
import {
  bytesOf,
  type Caller,
  callerOf,
  errorOf,
  eventually,
  expectInLog,
  expectWhole,
  spoken,
  turnIdOf,
} from "./clients.ts";
import { PACED_REPLY, SLOW_REPLY, shareParts } from "./parts.ts";

// A process gets SIGTERM while turns run, others wait, and others yet are only read. One test at a time: what one process hands
// over, any other on the same Redis takes, be it another test's.

const parts = shareParts();
/** So long that whoever waited for it would be late. */
const LEASE_MS = "30000";
let other: ServiceProcess;
let b: Caller;

beforeAll(async () => {
  other = await parts().startReplica({ LEASE_MS });
  b = callerOf(other);
});

function ready(service: ServiceProcess): Promise<number> {
  return service.readiness().then(({ status }) => status);
}

test("turns that run are read to their end, those that wait have their turn, and the next calls go elsewhere", async () => {
  const { startReplica, logOf } = parts();
  const leaving = await startReplica({ LEASE_MS, DRAIN_MS: "60000" });
  const running = await Promise.all(
    Array.from({ length: 24 }, async (_, index) => {
      const caller = callerOf(leaving, threeWires[index % 3]);
      const sessionId = await b.createSession();
      return { caller, sessionId, reading: caller.stream(sessionId, `message ${index}`, "paced") };
    }),
  );
  for (const { reading } of running) await spoken(reading);
  const waiting = running.slice(0, 6).map(({ caller, sessionId }) => caller.stream(sessionId, "me next", "slow"));
  for (const { places } of waiting) await eventually(() => expect(places).toEqual([1]));
  const behind = running.slice(0, 3).map(({ caller, sessionId }) => caller.stream(sessionId, "and me", "quick"));
  for (const { places } of behind) await eventually(() => expect(places).toEqual([2]));

  expect(await ready(leaving)).toBe(200);
  leaving.send("SIGTERM");
  await eventually(async () => expect(await ready(leaving)).toBe(503), { timeout: 1_000 });
  for (const { reading } of running) expect(reading.text()).not.toBe(PACED_REPLY);
  for (const { reading, sessionId } of running) {
    expect(await reading.end).toBeUndefined();
    expect(expectWhole(reading.events)).toEqual([PACED_REPLY]);
    const log = await logOf(turnIdOf(reading));
    expectInLog(reading, log);
    expect(reading.events).toHaveLength(log.length);
    expect((await b.history(sessionId))[0]).toContain("message");
  }
  for (const reading of waiting) {
    expect(await reading.end).toBeUndefined();
    expect(expectWhole(reading.events)).toEqual([SLOW_REPLY]);
  }
  for (const reading of behind) {
    expect(await reading.end).toBeUndefined();
    expect(expectWhole(reading.events)[0]).toContain("me next");
  }
  expect(await leaving.ended).toEqual({ code: 0, signal: null });
  expect(leaving.errorOutput()).toBe("");
  // Not lost, not failed: ended, and here.
  expect(leaving.logged({ msg: "turn ended" })).toHaveLength(33);
});

test("turns that outlast the drain end with their cursor and go on elsewhere at once, lease or no lease", async () => {
  const { startReplica, logOf, model, toolCalls } = parts();
  const leaving = await startReplica({ LEASE_MS, DRAIN_MS: "200" });
  const running = [...threeWires.entries()].flatMap(([index, wire]) => {
    const caller = callerOf(leaving, wire);
    return [
      { message: `tell all ${index}`, reading: caller.stream("", `tell all ${index}`, "paced") },
      { message: `wait ${index}`, reading: caller.stream("", `wait ${index}`, "wait") },
    ];
  });
  for (const { reading } of running) await spoken(reading);
  const waits = running.filter(({ message }) => message.startsWith("wait"));
  const isWaiting = async () => (await toolCalls()).join();
  for (const { reading } of waits) await eventually(async () => expect(await isWaiting()).toContain(turnIdOf(reading)));
  const sessionId = await b.createSession();
  const held = callerOf(leaving).stream(sessionId, "hold it", "paced");
  await spoken(held);
  const queued = callerOf(leaving).stream(sessionId, "queued", "quick", { idempotencyKey: "queued" });
  await eventually(() => expect(queued.places).toEqual([1]));

  leaving.send("SIGTERM");
  const leftMs = Date.now();
  // One that has no log yet has no cursor either; its key finds it elsewhere.
  expectRefusal(await errorOf(queued), { code: Code.Unavailable, reason: "DRAINING" });
  const requeued = b.stream(sessionId, "queued", "quick", { idempotencyKey: "queued" });
  for (const { message, reading } of running) {
    const cursor = { turnId: turnIdOf(reading), lastSequence: reading.events.at(-1)?.sequence ?? 0n };
    expectRefusal(await errorOf(reading), {
      code: Code.Unavailable,
      reason: "DRAINING",
      cursor: { ...cursor, lastSequence: reading.events.at(-1)?.sequence ?? 0n },
    });
    const rest = b.resume(cursor.turnId, reading.events.at(-1)?.sequence ?? 0n);
    const calls = () => model.calls.filter(({ messages }) => messages.some(({ content }) => content === message));
    if (message.startsWith("wait")) {
      // The tool's call was cut, and is not made again: the model is told that nobody knows its end.
      expect(await rest.end).toBeUndefined();
      const outcomes = rest.events.flatMap(({ event }) =>
        event.case === "toolCallCompleted" ? [event.value.outcome] : [],
      );
      expect(outcomes).toEqual([4]);
      expect(calls()).toHaveLength(3);
      const lines = (await toolCalls()).filter((line) => line.includes(cursor.turnId));
      expect(lines.map((line) => line.split(" ")[0])).toEqual(["wait", "stopped"]);
    } else {
      expect(await rest.end).toBeUndefined();
      expect(calls()).toHaveLength(2);
    }
    const all = [...reading.events, ...rest.events];
    expectWhole(all);
    expectInLog({ ...reading, events: all }, await logOf(cursor.turnId));
    const [taken] = other.logged({ msg: "turn taken over from a lost owner", turn_id: cursor.turnId });
    expect(Date.parse(String(taken?.time)) - leftMs).toBeLessThan(3_000);
  }
  expectRefusal(await errorOf(held), { code: Code.Unavailable, reason: "DRAINING", cursor: cursorOf(held) });
  expect(await requeued.end).toBeUndefined();
  expect((await b.history(sessionId)).filter((_, index) => index % 2 === 0)).toEqual(["hold it", "queued"]);
  expect(await leaving.ended).toEqual({ code: 0, signal: null });
  expect(leaving.logged({ level: "error" })).toEqual([]);
});

function cursorOf(reading: { events: Parameters<typeof expectWhole>[0] }) {
  const first = reading.events[0]?.event;
  const turnId = first?.case === "turnStarted" ? first.value.turnId : "";
  return { turnId, lastSequence: reading.events.at(-1)?.sequence ?? 0n };
}

test("those who read another process's turn here are sent on with their cursor", async () => {
  const { startReplica } = parts();
  const leaving = await startReplica({ LEASE_MS, DRAIN_MS: "200" });
  const running = b.stream("", "read me elsewhere", "endless", { idempotencyKey: "elsewhere" });
  await spoken(running);
  const turnId = turnIdOf(running);
  const readers = threeWires.flatMap((wire) => {
    const caller = callerOf(leaving, wire);
    return [caller.resume(turnId), caller.stream("", "read me elsewhere", "endless", { idempotencyKey: "elsewhere" })];
  });
  for (const reading of readers) await spoken(reading);
  leaving.send("SIGTERM");
  for (const reading of readers) {
    const error = await errorOf(reading);
    expectRefusal(error, { code: Code.Unavailable, reason: "DRAINING", cursor: cursorOf(reading) });
  }
  const rests = readers.map((reading) => b.resume(turnId, cursorOf(reading).lastSequence));
  for (const rest of rests) await spoken(rest);
  await b.chat.cancelTurn({ turnId });
  await running.end;
  for (const [index, rest] of rests.entries()) {
    expect((await errorOf(rest)).code).toBe(Code.Canceled);
    const all = [...(readers[index]?.events ?? []), ...rest.events];
    expect(all.map(bytesOf)).toEqual(running.events.map(bytesOf));
  }
  expect(await leaving.ended).toEqual({ code: 0, signal: null });
});
