import { Code } from "@connectrpc/connect";
import { beforeAll, expect, test } from "vitest";
import { OnDisconnect } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { FinishReason, TurnState } from "../../gen/parley/chat/v1/turn_pb.js";
import { expectRefusal, refusalOf } from "../rpc/refusals.ts";
import { threeWires } from "../rpc/wires.ts";
import { eventually } from "../support/eventually.ts";
import type { ServiceProcess } from "../support/service-process.ts";
import {
  bytesOf,
  type Caller,
  callerOf,
  casesOf,
  errorOf,
  expectInLog,
  expectWhole,
  finishOf,
  type Reading,
  spoken,
  turnIdOf,
} from "./clients.ts";
import { PACED_REPLY, SLOW_REPLY, shareParts } from "./parts.ts";

// A turn is ended by CancelTurn, by its caller's going away, or by its caller's deadline.

const parts = shareParts();
let services: ServiceProcess[];
let a: Caller;
let b: Caller;

beforeAll(async () => {
  const { startReplica } = parts();
  services = await Promise.all([startReplica({ LEASE_MS: "1000" }), startReplica({ LEASE_MS: "1000" })]);
  [a, b] = services.map((service) => callerOf(service)) as [Caller, Caller];
});

/** How the model's calls of a turn stand that were sent a text. */
function callStates(text: string) {
  const calls = parts().model.calls.filter(({ messages }) => messages.some(({ content }) => content === text));
  return calls.map(({ state }) => state);
}

/** The turn's end as the store has it. */
async function ended(turnId: string, finishReason: FinishReason): Promise<Reading> {
  await eventually(async () => {
    const { turn } = await b.chat.getTurn({ turnId });
    expect(turn).toMatchObject({ state: TurnState.FINISHED, finishReason });
  });
  const whole = b.resume(turnId);
  await whole.end;
  expectWhole(whole.events);
  expectInLog(whole, await parts().logOf(turnId));
  return whole;
}

const places = threeWires.flatMap((wire) => [0, 1].map((place) => ({ name: `${place} ${wire.name}`, wire, place })));

test.concurrent.each(places)(
  "CancelTurn on process $name ends the turn with what was said",
  async ({ name, wire, place }) => {
    const { logOf, model } = parts();
    const message = `cancel ${name}`;
    const sessionId = await a.createSession();
    const running = a.stream(sessionId, message, "endless");
    await spoken(running);
    const turnId = turnIdOf(running);
    const { turn } = await callerOf(services[place] as ServiceProcess, wire).chat.cancelTurn({ turnId });
    expectRefusal(await errorOf(running), { code: Code.Canceled, reason: "TURN_CANCELLED" });
    const [said] = expectWhole(running.events);
    expect(finishOf(running.events)).toBe(FinishReason.CANCELLED);
    // Where the call returned after the end there is nothing left to come.
    const after = running.events.filter(({ sequence }) => sequence > (turn?.lastSequence ?? 0n));
    expect(after.filter(({ event }) => event.case === "textDelta").length).toBeLessThanOrEqual(1);
    expect(casesOf(running.events).slice(-4)).toEqual([
      "textDelta",
      "messageCompleted",
      "usageRecorded",
      "turnCompleted",
    ]);
    expectInLog(running, await logOf(turnId));
    await eventually(() => expect(callStates(message)).toEqual(["closed_by_client"]));
    expect(await b.history(sessionId)).toEqual([message, said]);
    // Usage is what was said, at least, and no more than the model has counted and one chunk on its way.
    const usage = running.events.flatMap(({ event }) => (event.case === "usageRecorded" ? [event.value] : []));
    const call = model.calls.find(({ messages }) => messages.at(-1)?.content === message);
    expect(usage).toHaveLength(1);
    expect(usage[0]?.tokenUsage?.completionTokens).toBeGreaterThan(0);
    expect(usage[0]?.tokenUsage?.completionTokens).toBeLessThanOrEqual((call?.completionTokens ?? 0) + 8);
    // The next turn is not in its way.
    expect(await b.say(sessionId, "and now?")).toContain("and now?");
  },
);

test.concurrent("CancelTurn of a turn that has ended changes nothing, and of none is NOT_FOUND", async () => {
  const whole = a.stream("", "done", "quick");
  expect(await whole.end).toBeUndefined();
  const turnId = turnIdOf(whole);
  for (const caller of [a, b]) {
    const { turn } = await caller.chat.cancelTurn({ turnId });
    expect(turn).toMatchObject({ state: TurnState.FINISHED, finishReason: FinishReason.STOP });
  }
  expect((await ended(turnId, FinishReason.STOP)).events.map(bytesOf)).toEqual(whole.events.map(bytesOf));
  const never = turnId.replace(/.{16}$/, "AAAAAAAAAAAAAAAA");
  for (const id of [never, "nonsense"]) {
    const refusal = await refusalOf(b.chat.cancelTurn({ turnId: id }));
    expectRefusal(refusal, { code: Code.NotFound, reason: "TURN_NOT_FOUND" });
  }
});

test.concurrent("CancelTurn twice, from both processes at once, is one end", async () => {
  const running = a.stream("", "cancel twice", "endless");
  await spoken(running);
  await Promise.all([a, b, a, b].map((caller) => caller.chat.cancelTurn({ turnId: turnIdOf(running) })));
  expectRefusal(await errorOf(running), { code: Code.Canceled, reason: "TURN_CANCELLED" });
  expectWhole(running.events);
});

test.concurrent.each(["silent", "stuck"])(
  "CancelTurn of a model that stalls (%s) ends the turn at once",
  async (team) => {
    const message = `cancel the ${team} one with a few words`;
    const running = a.stream("", message, team);
    await eventually(() => expect(callStates(message)).toEqual(["open"]));
    if (team === "stuck") await spoken(running);
    await b.chat.cancelTurn({ turnId: turnIdOf(running) });
    expectRefusal(await errorOf(running), { code: Code.Canceled, reason: "TURN_CANCELLED" });
    expect(expectWhole(running.events)).toHaveLength(team === "stuck" ? 1 : 0);
    await eventually(() => expect(callStates(message)).toEqual(["closed_by_client"]));
  },
);

test.concurrent("CancelTurn amid a tool call stops the tool, whose end is UNKNOWN", async () => {
  const running = a.stream("", "cancel the tool", "wait");
  await eventually(async () => expect((await parts().toolCalls()).join()).toContain(turnIdOf(running) || "none yet"));
  await b.chat.cancelTurn({ turnId: turnIdOf(running) });
  expectRefusal(await errorOf(running), { code: Code.Canceled, reason: "TURN_CANCELLED" });
  expect(expectWhole(running.events)).toEqual(["piece 0 piece 1 piece 2 "]);
  const outcomes = running.events.flatMap(({ event }) =>
    event.case === "toolCallCompleted" ? [event.value.outcome] : [],
  );
  expect(outcomes).toEqual([4]);
  const lines = (await parts().toolCalls()).filter((line) => line.includes(turnIdOf(running)));
  expect(lines.map((line) => line.split(" ")[0])).toEqual(["wait", "stopped"]);
  expect(callStates("cancel the tool")).toEqual(["answered"]);
});

test.concurrent("CancelTurn of a dead owner's turn ends it with what was said, within the lease and two seconds", async () => {
  const owner = await parts().startReplica({ LEASE_MS: "1000" });
  const cut = callerOf(owner).stream("", "cancel the dead", "endless");
  await spoken(cut);
  await owner.kill();
  const turnId = turnIdOf(cut);
  await b.chat.cancelTurn({ turnId });
  const reading = b.resume(turnId);
  expectRefusal(await errorOf(reading), { code: Code.Canceled, reason: "TURN_CANCELLED" });
  const [said = ""] = expectWhole(reading.events);
  expect(said.startsWith(cut.text())).toBe(true);
  expect(casesOf(reading.events)).not.toContain("stepRestarted");
  expect(casesOf(reading.events).slice(-3)).toEqual(["messageCompleted", "usageRecorded", "turnCompleted"]);
  expect(callStates("cancel the dead")).toEqual(["closed_by_client"]);
});

const disconnects = [
  { name: "CANCEL", onDisconnect: OnDisconnect.CANCEL, goesOn: false },
  { name: "CONTINUE", onDisconnect: OnDisconnect.CONTINUE, goesOn: true },
  { name: "UNSPECIFIED", onDisconnect: OnDisconnect.UNSPECIFIED, goesOn: true },
] as const;
const goings = disconnects.flatMap((one) => threeWires.map((wire) => ({ ...one, wire, over: wire.name })));

test.concurrent.each(goings)("a caller that goes away with on_disconnect $name, over $over", async (one) => {
  const { name, onDisconnect, goesOn, wire, over } = one;
  const message = `leave ${name} ${over}`;
  const leaving = new AbortController();
  const caller = callerOf(services[0] as ServiceProcess, wire);
  // Where the going is to end the turn, nothing else does.
  const team = goesOn ? "slow" : "endless";
  const running = caller.stream("", message, team, { onDisconnect }, { signal: leaving.signal });
  await spoken(running);
  leaving.abort();
  await running.end;
  const whole = await ended(turnIdOf(running), goesOn ? FinishReason.STOP : FinishReason.CANCELLED);
  const [said = ""] = expectWhole(whole.events);
  expect(said === SLOW_REPLY).toBe(goesOn);
  await eventually(() => expect(callStates(message)).toEqual([goesOn ? "answered" : "closed_by_client"]));
});

test.concurrent.each(goings)("a deadline passes with on_disconnect $name, over $over", async (one) => {
  const { name, onDisconnect, goesOn, wire, over } = one;
  const message = `late ${name} ${over}`;
  const caller = callerOf(services[0] as ServiceProcess, wire);
  // The caller keeps no clock of its own: it would run first, and its reset could come before the service's clock had run.
  const headers = wire.protocol === "connect" ? { "connect-timeout-ms": "2000" } : { "grpc-timeout": "2000m" };
  const running = caller.stream("", message, "paced", { onDisconnect }, { headers });
  const error = await errorOf(running);
  expect(error.code).toBe(Code.DeadlineExceeded);
  const turnId = turnIdOf(running);
  const whole = await ended(turnId, goesOn ? FinishReason.STOP : FinishReason.DEADLINE);
  expect(expectWhole(whole.events)[0] === PACED_REPLY).toBe(goesOn);
  await eventually(() => expect(callStates(message)).toEqual([goesOn ? "answered" : "closed_by_client"]));
  // A replay ends as the turn did.
  const replay = b.resume(turnId);
  if (goesOn) expect(await replay.end).toBeUndefined();
  else expect((await errorOf(replay)).code).toBe(Code.DeadlineExceeded);
});

test.concurrent("who reads another call's turn ends nothing by going away", async () => {
  const running = a.stream("", "watched", "slow", { onDisconnect: OnDisconnect.CANCEL, idempotencyKey: "watched" });
  await spoken(running);
  const leaving = new AbortController();
  const { signal } = leaving;
  const fields = { onDisconnect: OnDisconnect.CANCEL, idempotencyKey: "watched" };
  const watching = [
    a.resume(turnIdOf(running), 0n, { signal }),
    b.resume(turnIdOf(running), 0n, { signal }),
    b.stream("", "watched", "slow", fields, { signal }),
  ];
  for (const reading of watching) await spoken(reading);
  leaving.abort();
  for (const reading of watching) await reading.end;
  expect(await running.end).toBeUndefined();
  expect(expectWhole(running.events)).toEqual([SLOW_REPLY]);
});

test.concurrent("a caller that goes away with CANCEL ends the turn though its process has lost it to another", async () => {
  const owner = await parts().startReplica({ LEASE_MS: "1000" });
  const leaving = new AbortController();
  const fields = { onDisconnect: OnDisconnect.CANCEL };
  const running = callerOf(owner).stream("", "leave the lost", "endless", fields, { signal: leaving.signal });
  await spoken(running);
  owner.send("SIGSTOP");
  const turnId = turnIdOf(running);
  const taken = () =>
    services.flatMap((service) => service.logged({ msg: "turn taken over from a lost owner", turn_id: turnId }));
  await eventually(() => expect(taken()).not.toHaveLength(0));
  owner.send("SIGCONT");
  const restarted = () => running.events.some(({ event }) => event.case === "stepRestarted");
  await eventually(() => expect(restarted()).toBe(true));
  leaving.abort();
  await running.end;
  await ended(turnId, FinishReason.CANCELLED);
  await eventually(() => expect(new Set(callStates("leave the lost"))).toEqual(new Set(["closed_by_client"])));
});
