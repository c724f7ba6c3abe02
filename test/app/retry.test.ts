import { Code } from "@connectrpc/connect";
import { beforeAll, expect, test } from "vitest";
import { expectRefusal, refusalOf } from "../rpc/refusals.ts";
import { threeWires } from "../rpc/wires.ts";
import { eventually } from "../support/eventually.ts";
import type { ServiceProcess } from "../support/service-process.ts";
import { bytesOf, type Caller, callerOf, errorOf, expectWhole, spoken, turnIdOf, USER } from "./clients.ts";
import { shareParts } from "./parts.ts";

// A request is sent again with its idempotency_key, to its own process or to another.

const parts = shareParts();
let services: ServiceProcess[];
let callers: [Caller, Caller];
/** Processes that let a user start two turns. */
let limited: ServiceProcess[];

beforeAll(async () => {
  const { startReplica } = parts();
  const start = (RATE_LIMIT: string) => startReplica({ LEASE_MS: "1000", RATE_LIMIT });
  const all = await Promise.all([start("1000000"), start("1000000"), start("2"), start("2")]);
  services = all.slice(0, 2);
  limited = all.slice(2);
  callers = services.map((service) => callerOf(service)) as [Caller, Caller];
});

/** The model's calls that were sent a text. */
function callsWith(text: string) {
  return parts().model.calls.filter(({ messages }) => messages.some(({ content }) => content?.includes(text)));
}

test.concurrent("of a turn that has ended is answered with that turn, as a stream and as a reply", async () => {
  const request = { message: "retry finished", userId: USER, idempotencyKey: "finished" };
  const [one, two] = callers;
  const first = one.stream("", request.message, "", request);
  expect(await first.end).toBeUndefined();
  for (const service of services) {
    for (const wire of threeWires) {
      const again = callerOf(service, wire).stream("", request.message, "", request);
      expect(await again.end).toBeUndefined();
      expect(again.events.map(bytesOf)).toEqual(first.events.map(bytesOf));
    }
  }
  const reply = await two.chat.chat(request);
  expect(reply).toMatchObject({ turnId: turnIdOf(first), response: first.text() });
  expect(callsWith("retry finished")).toHaveLength(1);
  expect(await one.history(reply.sessionId)).toEqual(["retry finished", first.text()]);
});

test.concurrent("of a turn that runs is read from its first event on, by as many as ask", async () => {
  const [one, two] = callers;
  const request = { idempotencyKey: "running" };
  const first = one.stream("", "retry running", "slow", request);
  await spoken(first);
  const again = [one, two, two].map((caller) => caller.stream("", "retry running", "slow", request));
  const reply = two.chat.chat({ message: "retry running", userId: USER, agentTeam: "slow", ...request });
  expect(await first.end).toBeUndefined();
  for (const reading of again) {
    expect(await reading.end).toBeUndefined();
    expect(reading.events.map(bytesOf)).toEqual(first.events.map(bytesOf));
  }
  expect(await reply).toMatchObject({ turnId: turnIdOf(first), response: first.text() });
  expect(callsWith("retry running")).toHaveLength(1);
});

test.concurrent("of a turn that failed fails as it did, and the model is not asked again", async () => {
  const [one, two] = callers;
  const request = { idempotencyKey: "cancelled" };
  const first = one.stream("", "retry cancelled", "endless", request);
  await spoken(first);
  await two.chat.cancelTurn({ turnId: turnIdOf(first) });
  const error = await errorOf(first);
  const again = two.stream("", "retry cancelled", "endless", request);
  expect(await errorOf(again)).toMatchObject({ code: error.code, rawMessage: error.rawMessage });
  expect(again.events.map(bytesOf)).toEqual(first.events.map(bytesOf));
  expect(callsWith("retry cancelled")).toHaveLength(1);
});

test.concurrent("whose fields differ is refused; another user's same key is another key", async () => {
  const [one, two] = callers;
  const request = { message: "retry original", userId: USER, idempotencyKey: "mine", metadata: { a: 1, b: [2] } };
  const first = await one.chat.chat(request);
  const others = [
    { message: "retry other" },
    { agentTeam: "quick" },
    { maxTokens: 3_000 },
    { sessionId: first.sessionId },
    { metadata: { a: 1, b: [3] } },
  ];
  for (const other of others) {
    const refusal = await refusalOf(two.chat.chat({ ...request, ...other }));
    expectRefusal(refusal, { code: Code.AlreadyExists, reason: "IDEMPOTENCY_KEY_REUSED" });
  }
  // The order of a map's entries is nothing that a caller decides.
  expect((await two.chat.chat({ ...request, metadata: { b: [2], a: 1 } })).turnId).toBe(first.turnId);
  const another = await two.chat.chat({ ...request, userId: "u2" });
  expect(another.turnId).not.toBe(first.turnId);
  expect(callsWith("retry original")).toHaveLength(2);
});

test.concurrent("a hundred at once, over two processes, are one turn, one model call and one of the rate limit", async () => {
  const wires = limited.flatMap((service) => threeWires.map((wire) => callerOf(service, wire)));
  const request = { message: "retry a hundred", userId: "limited", idempotencyKey: "hundred", agentTeam: "slow" };
  const outcomes = await Promise.all(
    Array.from({ length: 100 }, async (_, index) => {
      const caller = wires[index % wires.length] as Caller;
      if (index % 2 === 0) return (await caller.chat.chat(request)).turnId;
      const reading = caller.stream("", request.message, request.agentTeam, request);
      expect(await reading.end).toBeUndefined();
      expectWhole(reading.events);
      return turnIdOf(reading);
    }),
  );
  expect(new Set(outcomes).size).toBe(1);
  expect(callsWith("retry a hundred")).toHaveLength(1);
  // One of the two is left.
  const [caller] = wires as [Caller];
  const more = (key: string) =>
    caller.chat.chat({ ...request, message: `retry ${key}`, agentTeam: "", idempotencyKey: key });
  await more("one-more");
  const refusal = await refusalOf(more("too-many"));
  expectRefusal(refusal, { code: Code.ResourceExhausted, reason: "RATE_LIMITED" });
  // A replay costs nothing; what was refused has left its key free.
  expect((await caller.chat.chat(request)).turnId).toBe(outcomes[0]);
  expectRefusal(await refusalOf(more("too-many")), { code: Code.ResourceExhausted, reason: "RATE_LIMITED" });
});

test.concurrent("a first call that was refused leaves the key to the next, whatever that asks", async () => {
  const [one, two] = callers;
  const key = { userId: USER, idempotencyKey: "refused" };
  const noTeam = await refusalOf(one.chat.chat({ ...key, message: "x", agentTeam: "nobody" }));
  expectRefusal(noTeam, { code: Code.NotFound, reason: "AGENT_TEAM_NOT_FOUND" });
  const noSession = await refusalOf(two.chat.chat({ ...key, message: "x", sessionId: "nowhere" }));
  expectRefusal(noSession, { code: Code.NotFound, reason: "SESSION_NOT_FOUND" });
  const sessionId = await one.createSession();
  const running = one.stream(sessionId, "go on", "endless");
  await spoken(running);
  const busy = two.stream(sessionId, "x", "quick", { ...key, onBusy: 2 });
  expect((await errorOf(busy)).code).toBe(Code.Aborted);
  await two.chat.cancelTurn({ turnId: turnIdOf(running) });
  await running.end;
  const { response } = await one.chat.chat({ ...key, sessionId, message: "retry at last" });
  expect(response).toContain("retry at last");
});

test.concurrent("one that waits in the queue is the same turn, whoever of its callers goes away", async () => {
  const [one, two] = callers;
  const sessionId = await one.createSession();
  const running = one.stream(sessionId, "go on", "endless");
  await spoken(running);
  const key = { idempotencyKey: "waiting" };
  const gone = new AbortController();
  const first = one.stream(sessionId, "retry waiting", "quick", key, { signal: gone.signal });
  await eventually(() => expect(first.places).toEqual([1]));
  const second = two.stream(sessionId, "retry waiting", "quick", key);
  await eventually(() => expect(second.places).toEqual([1]));
  gone.abort();
  await first.end;
  await one.chat.cancelTurn({ turnId: turnIdOf(running) });
  expect(await second.end).toBeUndefined();
  expectWhole(second.events);
  const third = one.stream(sessionId, "retry waiting", "quick", key);
  expect(await third.end).toBeUndefined();
  expect(third.events.map(bytesOf)).toEqual(second.events.map(bytesOf));
  expect(callsWith("retry waiting")).toHaveLength(1);
  expect((await one.history(sessionId)).filter((text) => text === "retry waiting")).toHaveLength(1);
});

const deaths = [
  ["before it has claimed the key", "before claimKey 1", 1],
  ["after it has claimed the key", "after claimKey 1", 1],
  ["before the rate limit's count is noted", "before markKey 1", 2],
  ["after the rate limit's count is noted", "after markKey 1", 1],
  ["before the turn begins", "before begin 1", 1],
  ["after the turn has begun", "after begin 1", 1],
  ["before the key is noted as begun", "before markKey 2", 1],
] as const;

test.concurrent.each(deaths)("a claimant killed %s leaves a turn that the next call completes", async (_, at, cost) => {
  const { startReplica } = parts();
  const dying = await startReplica({ LEASE_MS: "1000", DIE_AT: at });
  const request = { message: `retry ${at}`, userId: `u ${at}`, idempotencyKey: "killed" };
  await errorOf(callerOf(dying).stream("", request.message, "quick", request));
  expect(await dying.ended).toMatchObject({ signal: "SIGKILL" });
  const caller = callerOf(limited[0] as ServiceProcess);
  const reading = caller.stream("", request.message, "quick", request);
  expect(await reading.end).toBeUndefined();
  expectWhole(reading.events);
  const again = caller.stream("", request.message, "quick", request);
  expect(await again.end).toBeUndefined();
  expect(again.events.map(bytesOf)).toEqual(reading.events.map(bytesOf));
  expect(callsWith(request.message)).toHaveLength(1);
  // What is left of the two that the rate limit allows.
  const more = (message: string) => caller.chat.chat({ message, userId: request.userId });
  const left = await Promise.allSettled([more("left"), more("left")]);
  expect(left.filter(({ status }) => status === "fulfilled")).toHaveLength(2 - cost);
});
