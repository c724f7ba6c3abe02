import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";
import type { Interceptor, Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { createConnectTransport as createWebTransport } from "@connectrpc/connect-web";
import { expect, onTestFinished, test } from "vitest";
import {
  Code,
  ConnectError,
  createParley,
  FinishReason,
  isConnectionLost,
  OnBusy,
  type Parley,
  reasonOf,
  TurnCursorSchema,
  type TurnEvent,
  TurnState,
} from "../../client/client.ts";
import { refusalOf } from "../rpc/refusals.ts";
import { eventually } from "../support/eventually.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import { singleTeams } from "../support/single-teams.ts";
import { useTestApp } from "../support/use-app.ts";

// The helper on a network that is not well, and within what its caller lets it.

const app = useTestApp({
  yaml: JSON.stringify({
    ...singleTeams({
      quick: { model: "gpt-4o" },
      slow: { model: "sim-100x40" },
      endless: { model: "sim-5000x20" },
      broken: { model: "sim-500" },
    }),
    default_team: "quick",
  }),
});
const WHOLE = Array.from({ length: 100 }, (_, index) => `piece ${index} `).join("");
const STORY = { message: "a story", userId: "u1", agentTeam: "slow" };

async function startProxy(): Promise<FaultProxy & { readonly url: string }> {
  const proxy = await startFaultProxy({ port: Number(new URL(app.url).port) });
  onTestFinished(() => proxy.stop());
  return { ...proxy, url: `http://127.0.0.1:${proxy.port}` };
}

/** How it may reach the service. */
const ways: readonly [string, (baseUrl: string, interceptors?: Interceptor[]) => Transport][] = [
  ["fetch", (baseUrl, interceptors = []) => createWebTransport({ baseUrl, interceptors })],
  [
    "connect-node",
    (baseUrl, interceptors = []) => createConnectTransport({ baseUrl, httpVersion: "1.1", interceptors }),
  ],
  ["gRPC", (baseUrl, interceptors = []) => createGrpcTransport({ baseUrl, interceptors })],
];

/** Reads a stream in the background. */
function reading(stream: AsyncIterable<TurnEvent>) {
  const events: TurnEvent[] = [];
  const drain = async (): Promise<undefined> => {
    for await (const event of stream) events.push(event);
  };
  return {
    events,
    text: () => textOf(events),
    end: drain().catch((error: unknown) => error),
  };
}

function textOf(events: readonly TurnEvent[]): string {
  return events.map(({ event }) => (event.case === "textDelta" ? event.value.text : "")).join("");
}

/** Each event of a log from this sequence on, once and in order. */
function expectLog(events: readonly TurnEvent[], from = 1): void {
  expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, index) => BigInt(index + from)));
}

function cursorOf(error: unknown) {
  return ConnectError.from(error).findDetails(TurnCursorSchema)[0];
}

test.each(ways)("over %s, a stream that is cut again and again is whole, and one turn", async (_, way) => {
  const proxy = await startProxy();
  const calls = app.simulated.callCount;
  const told: string[] = [];
  const parley = createParley({ transport: way(proxy.url) });
  const story = reading(parley.stream(STORY, { timeoutMs: 60_000, onConnection: (is) => told.push(is) }));
  for (const piece of [3, 30, 60]) {
    await eventually(() => expect(story.text()).toContain(`piece ${piece} `));
    proxy.cut();
    await eventually(() => expect(told.at(-1)).toBe("lost"));
    proxy.heal();
  }
  expect(await story.end).toBeUndefined();
  expectLog(story.events);
  expect(story.text()).toBe(WHOLE);
  expect(told).toEqual(["fine", "lost", "fine", "lost", "fine", "lost", "fine"]);
  expect(app.simulated.callCount).toBe(calls + 1);
});

test.each(ways)("over %s, a reply whose connection is cut is the one turn's", async (_, way) => {
  const proxy = await startProxy();
  const calls = app.simulated.callCount;
  const reply = createParley({ transport: way(proxy.url) }).chat(STORY, { timeoutMs: 60_000 });
  await eventually(() => expect(app.simulated.callCount).toBe(calls + 1));
  proxy.cut();
  proxy.heal();
  const { response, turnId, sessionId, finishReason, tokenUsage, costMicroUsd } = await reply;
  expect({ response, finishReason }).toEqual({ response: WHOLE, finishReason: FinishReason.STOP });
  const { turn } = await createParley({ baseUrl: app.url }).turns.getTurn({ turnId });
  expect(turn).toMatchObject({ sessionId, tokenUsage, costMicroUsd });
  expect(app.simulated.callCount).toBe(calls + 1);
});

test("an answer that is lost before it says anything is the same turn when it is asked for again", async () => {
  const proxy = await startProxy();
  const calls = app.simulated.callCount;
  const keys = new Set<string>();
  const keep: Interceptor = (next) => (call) => {
    if (!call.stream || call.method.name !== "StreamChat") return next(call);
    const message = (async function* () {
      for await (const request of call.message) {
        keys.add((request as unknown as { idempotencyKey: string }).idempotencyKey);
        yield request;
      }
    })();
    return next({ ...call, message });
  };
  const parley = createParley({ transport: createWebTransport({ baseUrl: proxy.url, interceptors: [keep] }) });
  // The request has come through, its answer is held back.
  proxy.slow(500);
  const story = reading(parley.stream(STORY, { timeoutMs: 60_000 }));
  await eventually(() => expect(app.simulated.callCount).toBe(calls + 1));
  proxy.cut();
  proxy.heal();
  expect(await story.end).toBeUndefined();
  expectLog(story.events);
  expect(story.text()).toBe(WHOLE);
  expect([...keys]).toEqual([expect.stringMatching(/^[0-9a-f]{32}$/)]);
  expect(app.simulated.callCount).toBe(calls + 1);
});

test("a deadline ends a call with the cursor, the turn goes on, and resume has the rest", async () => {
  const parley = createParley({ baseUrl: app.url });
  const story = reading(parley.stream(STORY, { timeoutMs: 2_000 }));
  const error = ConnectError.from(await story.end);
  expect(error.code).toBe(Code.DeadlineExceeded);
  expect(reasonOf(error)).toBe("DEADLINE_EXCEEDED");
  const cursor = cursorOf(error);
  expect(cursor).toMatchObject({ lastSequence: BigInt(story.events.length) });
  const { turnId = "", lastSequence = 0n } = cursor ?? {};
  expect((await parley.turns.getTurn({ turnId })).turn?.state).toBe(TurnState.RUNNING);
  const rest = reading(parley.resume({ turnId, afterSequence: lastSequence }));
  expect(await rest.end).toBeUndefined();
  expectLog([...story.events, ...rest.events]);
  expect(textOf([...story.events, ...rest.events])).toBe(WHOLE);
});

test("a deadline holds while nobody answers", async () => {
  const proxy = await startProxy();
  proxy.cut();
  const error = await refusalOf(createParley({ baseUrl: proxy.url }).chat(STORY, { timeoutMs: 400 }));
  expect(error.code).toBe(Code.DeadlineExceeded);
  expect(cursorOf(error)).toBeUndefined();
  expect(ConnectError.from(error.cause).code).not.toBe(Code.DeadlineExceeded);
});

test("a signal ends a call with the cursor and its reason, and the turn goes on", async () => {
  const parley = createParley({ baseUrl: app.url });
  const leaving = new AbortController();
  const story = reading(parley.stream(STORY, { signal: leaving.signal }));
  await eventually(() => expect(story.text()).toContain("piece 3 "));
  leaving.abort("bored");
  const error = ConnectError.from(await story.end);
  expect(error).toMatchObject({ code: Code.Canceled, cause: "bored" });
  const { turnId = "" } = cursorOf(error) ?? {};
  const whole = reading(parley.resume({ turnId }));
  expect(await whole.end).toBeUndefined();
  expectLog(whole.events);
  expect(whole.text()).toBe(WHOLE);
  const before = await refusalOf(parley.chat(STORY, { signal: AbortSignal.abort() }));
  expect(before.code).toBe(Code.Canceled);
});

test("who stops reading leaves the turn running", async () => {
  const parley = createParley({ baseUrl: app.url });
  let turnId = "";
  for await (const { event } of parley.stream(STORY)) {
    if (event.case === "turnStarted") ({ turnId } = event.value);
    if (event.case === "textDelta") break;
  }
  expect((await parley.turns.getTurn({ turnId })).turn?.state).toBe(TurnState.RUNNING);
  await parley.turns.cancelTurn({ turnId });
});

test("attempts end when patience does, with what was in their way", async () => {
  const proxy = await startProxy();
  proxy.cut();
  const told: string[] = [];
  const options = { patienceMs: 500, onConnection: (is: string) => void told.push(is) };
  const error = await refusalOf(createParley({ baseUrl: proxy.url }).chat(STORY, options));
  expect(isConnectionLost(error)).toBe(true);
  expect(reasonOf(error)).toBe("");
  expect(told).toEqual(["lost"]);
});

test("a turn that failed is thrown as it failed, after its events, and not run again", async () => {
  const request = { ...STORY, agentTeam: "broken" };
  const once = app.simulated.callCount;
  await refusalOf(createParley({ baseUrl: app.url }).turns.chat(request));
  const calls = app.simulated.callCount;
  const failed = reading(createParley({ baseUrl: app.url }).stream(request, { timeoutMs: 60_000 }));
  expect(reasonOf(await failed.end)).toBe("MODEL_UNAVAILABLE");
  expectLog(failed.events);
  expect(failed.events.at(-1)?.event).toMatchObject({ value: { finishReason: FinishReason.ERROR } });
  expect(app.simulated.callCount - calls).toBeLessThanOrEqual(calls - once);
});

test("a turn that is cancelled elsewhere ends so, once", async () => {
  const parley = createParley({ baseUrl: app.url });
  const story = reading(parley.stream({ ...STORY, agentTeam: "endless" }));
  await eventually(() => expect(story.text()).toContain("piece 3 "));
  const [first] = story.events;
  const turnId = first?.event.case === "turnStarted" ? first.event.value.turnId : "";
  await parley.retry((call) => parley.turns.cancelTurn({ turnId }, call));
  expect(reasonOf(await story.end)).toBe("TURN_CANCELLED");
  expectLog(story.events);
});

test.each<[string, (parley: Parley) => Promise<unknown>, string]>([
  ["a field that is wrong", (parley) => parley.chat({ message: "", userId: "u1" }), "INVALID_FIELD"],
  ["a session that is not there", (parley) => parley.chat({ ...STORY, sessionId: "nowhere" }), "SESSION_NOT_FOUND"],
  ["a turn that is not there", (parley) => reading(parley.resume({ turnId: "x" })).end, "TURN_NOT_FOUND"],
  ["another call", (parley) => parley.retry((call) => parley.turns.getTurn({ turnId: "x" }, call)), "TURN_NOT_FOUND"],
])("%s is refused at once", async (_, call, reason) => {
  const error = await call(createParley({ baseUrl: app.url })).catch((thrown: unknown) => thrown);
  expect(reasonOf(error)).toBe(reason);
});

test("a busy session is refused at once where that was asked for, and its cursor is not followed", async () => {
  const parley = createParley({ baseUrl: app.url });
  const { session } = await parley.sessions.createSession({ userId: "u1" });
  const { sessionId = "" } = session ?? {};
  const running = reading(parley.stream({ ...STORY, sessionId, agentTeam: "endless" }));
  await eventually(() => expect(running.text()).not.toBe(""));
  const refused = reading(parley.stream({ ...STORY, sessionId, onBusy: OnBusy.REJECT }));
  expect(reasonOf(await refused.end)).toBe("SESSION_BUSY");
  expect(refused.events).toEqual([]);
  await parley.sessions.deleteSession({ sessionId });
  await running.end;
});

test.each([
  [{ maxTokens: 1.5 }, /int32/],
  [{ metadata: { a: Number.NaN } }, /NaN/],
])("a value that no request can have is thrown at once: %o", async (wrong, sentence) => {
  const nobody = createParley({ baseUrl: "http://127.0.0.1:9" });
  await expect(nobody.chat({ message: "hello", userId: "u1", ...wrong })).rejects.toThrow(sentence);
});

test("a token is asked for at each attempt, and one that cannot be had ends the call", async () => {
  const proxy = await startProxy();
  proxy.cut();
  let asked = 0;
  const token = () => {
    asked++;
    if (asked === 2) proxy.heal();
    return "sk-example";
  };
  const parley = createParley({ baseUrl: proxy.url, token });
  expect((await parley.chat({ message: "hello", userId: "u1" })).response).toContain("hello");
  expect(asked).toBeGreaterThan(1);
  const cause = new Error("locked");
  const locked = createParley({ baseUrl: app.url, token: () => Promise.reject(cause) });
  expect(await refusalOf(locked.chat({ message: "hello" }))).toMatchObject({ code: Code.Unauthenticated, cause });
});

test("a token that never comes is waited for no longer than the call may last", async () => {
  const hanging = createParley({ baseUrl: app.url, token: () => new Promise(() => undefined) });
  const late = hanging.chat({ message: "hello", userId: "u1" }, { timeoutMs: 100 });
  expect(await refusalOf(late)).toMatchObject({ code: Code.DeadlineExceeded });
  const left = hanging.retry((call) => hanging.turns.getTurn({ turnId: "x" }, call), {
    signal: AbortSignal.timeout(100),
  });
  expect(await refusalOf(left)).toMatchObject({ code: Code.Canceled });
});

test.each(ways.slice(0, 2))(
  "over %s, a stream that is cut and ended as if it were whole is read on",
  async (_, way) => {
    const cuts = [300, 301, 302, 303, 304, 305, 306, 307];
    // A proxy that does not know its server's stream to be cut: one that speaks HTTP/1.0 to it.
    const proxy = createServer(async (request, response) => {
      const body = await buffer(request);
      const headers = { "content-type": request.headers["content-type"] ?? "" };
      const answer = await fetch(`${app.url}${request.url}`, { method: "POST", headers, body });
      response.writeHead(answer.status, { "content-type": answer.headers.get("content-type") ?? "" });
      let left = cuts.shift() ?? Number.POSITIVE_INFINITY;
      for await (const piece of answer.body ?? []) {
        response.write(piece.subarray(0, left));
        left -= piece.byteLength;
        if (left <= 0) break;
      }
      response.end();
    });
    proxy.listen(0, "127.0.0.1");
    await once(proxy, "listening");
    onTestFinished(() => void proxy.close());
    const parley = createParley({ transport: way(`http://127.0.0.1:${(proxy.address() as AddressInfo).port}`) });
    const story = reading(parley.stream(STORY, { timeoutMs: 60_000 }));
    expect(await story.end).toBeUndefined();
    expectLog(story.events);
    expect([story.text(), cuts]).toEqual([WHOLE, []]);
  },
);

test("another call comes through a network that breaks", async () => {
  const proxy = await startProxy();
  const parley = createParley({ baseUrl: proxy.url });
  proxy.cut();
  const call = parley.retry((options) => parley.sessions.createSession({ userId: "u1" }, options), {
    timeoutMs: 60_000,
    onConnection: (is) => is === "lost" && proxy.heal(),
  });
  expect((await call).session?.userId).toBe("u1");
});
