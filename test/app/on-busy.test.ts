import { Code } from "@connectrpc/connect";
import { beforeAll, describe, expect, test } from "vitest";
import { OnBusy } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { FinishReason, TurnState } from "../../gen/parley/chat/v1/turn_pb.js";
import { expectRefusal, refusalOf } from "../rpc/refusals.ts";
import { eventually } from "../support/eventually.ts";
import type { ServiceProcess } from "../support/service-process.ts";
import {
  bytesOf,
  type Caller,
  callerOf,
  errorOf,
  expectInLog,
  expectWhole,
  finishOf,
  type Reading,
  spoken,
  turnIdOf,
  USER,
} from "./clients.ts";
import { SLOW_REPLY, shareParts } from "./parts.ts";

// A message comes while another turn of its session runs, on this process or another, alive, dead or standing still.

const parts = shareParts();
let services: ServiceProcess[];
let a: Caller;
let b: Caller;

beforeAll(async () => {
  const { startReplica } = parts();
  services = await Promise.all([startReplica({ LEASE_MS: "1000" }), startReplica({ LEASE_MS: "1000" })]);
  [a, b] = services.map((service) => callerOf(service)) as [Caller, Caller];
});

/** A session whose turn runs and has said something. */
async function busySession(caller: Caller, team = "endless") {
  const sessionId = await b.createSession();
  await b.say(sessionId, "hello");
  const running = caller.stream(sessionId, "go on", team);
  await spoken(running);
  return { sessionId, running, before: await b.history(sessionId) };
}

/** Both ways to ask: whether it went well, and what was said. */
const ways = {
  unary: async (caller: Caller, sessionId: string, message: string, onBusy: OnBusy) =>
    (await caller.chat.chat({ sessionId, message, userId: USER, onBusy })).response,
  stream: async (caller: Caller, sessionId: string, message: string, onBusy: OnBusy) => {
    const reading = caller.stream(sessionId, message, "quick", { onBusy });
    const error = await reading.end;
    if (error !== undefined) throw error;
    expectWhole(reading.events);
    return reading.text();
  },
};

const ends = [
  { onBusy: OnBusy.INTERRUPT, finish: FinishReason.INTERRUPTED, reason: "TURN_INTERRUPTED", keeps: true },
  { onBusy: OnBusy.ROLLBACK, finish: FinishReason.ROLLED_BACK, reason: "TURN_ROLLED_BACK", keeps: false },
] as const;
const both = (Object.keys(ways) as (keyof typeof ways)[]).flatMap((way) =>
  ends.map((end) => ({ ...end, way, name: OnBusy[end.onBusy] })),
);

/** Checks what is left of a turn that was ended by a newer message. */
async function expectEnded(
  cut: Reading,
  { finish, keeps, before, next }: { finish: FinishReason; keeps: boolean; before: string[]; next: string[] },
): Promise<void> {
  const turnId = turnIdOf(cut);
  const replay = b.resume(turnId);
  expect((await errorOf(replay)).code).toBe(Code.Aborted);
  const [said = ""] = expectWhole(replay.events);
  expect(said).not.toBe("");
  expect(finishOf(replay.events)).toBe(finish);
  expect(replay.events.slice(0, cut.events.length).map(bytesOf)).toEqual(cut.events.map(bytesOf));
  expectInLog(replay, await parts().logOf(turnId));
  const [{ event }] = replay.events as [Reading["events"][number]];
  const sessionId = event.case === "turnStarted" ? event.value.sessionId : "";
  expect(await b.history(sessionId)).toEqual([...before, ...(keeps ? ["go on", said] : []), ...next]);
}

describe.concurrent("on an owner that is alive", () => {
  const places = ["the same", "another"] as const;
  const cases = both.flatMap((one) => places.map((place) => ({ ...one, place })));

  test.each(cases)("$name by a $way call on $place process ends the running turn", async (one) => {
    const { way, place, onBusy, finish, reason, keeps } = one;
    const { sessionId, running, before } = await busySession(a);
    const response = await ways[way](place === "another" ? b : a, sessionId, "instead", onBusy);
    expect(response).toContain("instead");
    expect(response.includes("go on")).toBe(keeps);
    const error = await errorOf(running);
    expectRefusal(error, { code: Code.Aborted, reason });
    expect(finishOf(running.events)).toBe(finish);
    await expectEnded(running, { finish, keeps, before, next: ["instead", response] });
  });

  test.each(both)("$name by a $way call ends a turn that says nothing, at once", async (one) => {
    const sessionId = await b.createSession();
    const silent = a.stream(sessionId, "silence", "silent");
    await eventually(() => expect(silent.events).not.toEqual([]));
    const response = await ways[one.way](b, sessionId, "instead of silence", one.onBusy);
    expectRefusal(await errorOf(silent), { code: Code.Aborted, reason: one.reason });
    expectWhole(silent.events);
    const history = await b.history(sessionId);
    expect(history).toEqual([...(one.keeps ? ["silence"] : []), "instead of silence", response]);
    const calls = () => parts().model.calls.filter(({ messages }) => messages.at(-1)?.content === "silence");
    await eventually(() => expect(calls().every(({ state }) => state === "closed_by_client")).toBe(true));
  });

  test.each(Object.entries(ways))("REJECT by a %s call is ABORTED with the running turn's cursor", async (_, ask) => {
    const { sessionId, running, before } = await busySession(a);
    for (const caller of [a, b]) {
      const refusal = await refusalOf(ask(caller, sessionId, "never", OnBusy.REJECT));
      const lastSequence = expect.any(BigInt) as bigint;
      expectRefusal(refusal, {
        code: Code.Aborted,
        reason: "SESSION_BUSY",
        cursor: { turnId: turnIdOf(running), lastSequence },
      });
    }
    await b.chat.cancelTurn({ turnId: turnIdOf(running) });
    await running.end;
    // Free again: what it refuses is a busy session, not a session.
    const response = await ask(b, sessionId, "at last", OnBusy.REJECT);
    expect(await b.history(sessionId)).toEqual([...before, "go on", running.text(), "at last", response]);
  });

  test.each([OnBusy.ENQUEUE, OnBusy.UNSPECIFIED])(
    "ENQUEUE (%i) waits, is told its place, and comes next",
    async (onBusy) => {
      const { sessionId, running, before } = await busySession(a, "slow");
      const streamed = b.stream(sessionId, "second", "quick", { onBusy });
      await eventually(() => expect(streamed.places).toEqual([1]));
      const unary = ways.unary(a, sessionId, "third", onBusy);
      await eventually(async () =>
        expect(await parts().ask((redis) => redis.zcard(`{s:default/${sessionId}}:queue`))).toBe(2),
      );
      const last = b.stream(sessionId, "fourth", "quick", { onBusy });
      await eventually(() => expect(last.places).toEqual([3]));
      const reply = await unary;
      for (const { end } of [running, streamed, last]) expect(await end).toBeUndefined();
      for (const { events } of [running, streamed, last]) expectWhole(events);
      expect(streamed.places).toEqual([1]);
      expect(last.places.toSorted((x, y) => y - x)).toEqual(last.places);
      const turns = ["go on", SLOW_REPLY, "second", streamed.text(), "third", reply, "fourth", last.text()];
      expect(await b.history(sessionId)).toEqual([...before, ...turns]);
    },
  );

  test("INTERRUPT goes before those that wait, and a later INTERRUPT before that", async () => {
    const { sessionId, running } = await busySession(a);
    const waiting = b.stream(sessionId, "I can wait", "quick");
    await eventually(() => expect(waiting.places).toEqual([1]));
    const urgent = b.stream(sessionId, "urgent", "slow", { onBusy: OnBusy.INTERRUPT });
    await spoken(urgent);
    const patient = a.stream(sessionId, "I can wait longer", "quick", { onBusy: OnBusy.ENQUEUE });
    await eventually(() => expect(patient.places).not.toEqual([]));
    const more = a.stream(sessionId, "more urgent", "quick", { onBusy: OnBusy.ROLLBACK });
    expectRefusal(await errorOf(running), { code: Code.Aborted, reason: "TURN_INTERRUPTED" });
    expectRefusal(await errorOf(urgent), { code: Code.Aborted, reason: "TURN_ROLLED_BACK" });
    for (const { end } of [more, waiting, patient]) expect(await end).toBeUndefined();
    const asked = (await b.history(sessionId)).filter((_, index) => index % 2 === 0);
    expect(asked).toEqual(["hello", "go on", "more urgent", "I can wait", "I can wait longer"]);
  });

  test("a queue that is full refuses the seventeenth, and those in it all come", async () => {
    const { sessionId, running } = await busySession(a);
    const waiting: Reading[] = [];
    for (let place = 1; place <= 16; place++) {
      const reading = (place % 2 === 0 ? a : b).stream(sessionId, `waits ${place}`, "quick");
      await eventually(() => expect(reading.places[0]).toBe(place));
      waiting.push(reading);
    }
    for (const ask of Object.values(ways)) {
      const refusal = await refusalOf(ask(b, sessionId, "too many", OnBusy.ENQUEUE));
      expectRefusal(refusal, { code: Code.ResourceExhausted, reason: "SESSION_QUEUE_FULL" });
    }
    await b.chat.cancelTurn({ turnId: turnIdOf(running) });
    for (const { end } of waiting) expect(await end).toBeUndefined();
    const asked = (await b.history(sessionId)).filter((_, index) => index % 2 === 0);
    expect(asked).toEqual(["hello", "go on", ...waiting.map((_, index) => `waits ${index + 1}`)]);
  });
});

describe.concurrent.each(["SIGKILL", "SIGSTOP"] as const)("on an owner after %s", (signal) => {
  test("INTERRUPT and ROLLBACK need not wait for the lease, ENQUEUE does, REJECT is refused", async () => {
    // A lease so long that whoever waited for it would be late.
    const owner = await parts().startReplica({ LEASE_MS: "20000" });
    const caller = callerOf(owner);
    const sessions = await Promise.all(both.map(() => busySession(caller)));
    const waits = await busySession(caller);
    owner.send(signal);
    if (signal === "SIGKILL") await owner.ended;

    const startedMs = performance.now();
    const responses = await Promise.all(
      both.map(({ way, onBusy }, index) => ways[way](b, sessions[index]?.sessionId ?? "", "instead", onBusy)),
    );
    expect(performance.now() - startedMs).toBeLessThan(10_000);
    const refusal = await refusalOf(ways.unary(b, waits.sessionId, "never", OnBusy.REJECT));
    const cursor = { turnId: turnIdOf(waits.running), lastSequence: expect.any(BigInt) as bigint };
    expectRefusal(refusal, { code: Code.Aborted, reason: "SESSION_BUSY", cursor });
    const queued = b.stream(waits.sessionId, "I wait", "quick");
    await eventually(() => expect(queued.places).toEqual([1]));
    expect((await b.chat.getTurn({ turnId: cursor.turnId })).turn?.state).toBe(TurnState.RUNNING);

    owner.send("SIGCONT");
    for (const [index, one] of both.entries()) {
      const { running, before } = sessions[index] as (typeof sessions)[number];
      const error = await errorOf(running);
      if (signal === "SIGSTOP") {
        expectRefusal(error, { code: Code.Aborted, reason: one.reason });
        expectWhole(running.events);
      }
      await expectEnded(running, { ...one, before, next: ["instead", responses[index] ?? ""] });
    }
    // One that stood still for less than its lease is the owner yet.
    await b.chat.cancelTurn({ turnId: cursor.turnId });
    if (signal === "SIGSTOP") expect(await queued.end).toBeUndefined();
  });
});
