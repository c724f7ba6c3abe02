import { Code } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createParley } from "../../client/client.ts";
import { OnDisconnect } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { FinishReason, TurnState } from "../../gen/parley/chat/v1/turn_pb.js";
import { type SimulatedModel, startSimulatedModel } from "../../src/providers/simulated-model.ts";
import { bytesOf, callerOf, errorOf, expectWhole, finishOf, spoken, turnIdOf, USER } from "../app/clients.ts";
import { expectRefusal, refusalOf } from "../rpc/refusals.ts";
import { threeWires, type Wire, wires } from "../rpc/wires.ts";
import { eventually } from "../support/eventually.ts";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { buildEdge, type EdgeBundle, type EdgeWorker, startWorker } from "./worker.ts";

// Turns of the edge and of replicas on one Redis: whoever reads them where, and whoever ends.

const PIECES = 100;
const WHOLE = Array.from({ length: PIECES }, (_, index) => `piece ${index} `).join("");

let bundle: EdgeBundle;
let model: SimulatedModel;
let redis: RedisServer;
let replica: TestApp;
let worker: EdgeWorker;
beforeAll(async () => {
  bundle = await buildEdge();
  model = await startSimulatedModel();
  redis = await startRedisServer();
  replica = await startTestApp({
    redisUrl: redis.url,
    simulated: model,
    model: "sim-100x30",
    env: { LEASE_MS: "1000" },
  });
  worker = await startEdge();
});
afterAll(async () => {
  await worker?.stop();
  await replica?.close();
  await redis?.stop();
  await model?.close();
  await bundle?.remove();
});

function startEdge(): Promise<EdgeWorker> {
  return startWorker(bundle, {
    OPENAI_BASE_URL: model.baseUrl,
    REDIS_URL: redis.url,
    MODEL: "sim-100x30",
    LEASE_MS: "1000",
    LOG_LEVEL: "warn",
  });
}

/** What the edge speaks, in Node: over HTTP/1.1, as workerd does. */
const edgeWires = wires.filter(({ protocol, httpVersion }) => protocol !== "grpc" && httpVersion === "1.1");

describe.each(edgeWires)("by $name", (wire: Wire) => {
  test("a turn that has ended is read from any sequence on, the same at the edge and at a replica", async () => {
    const edge = callerOf(worker, wire);
    const first = edge.stream("", "a story", "");
    expect(await first.end).toBeUndefined();
    expect(expectWhole(first.events)).toEqual([WHOLE]);
    for (const caller of [edge, callerOf(replica)]) {
      const whole = caller.resume(turnIdOf(first));
      expect(await whole.end).toBeUndefined();
      expect(whole.events.map(bytesOf)).toEqual(first.events.map(bytesOf));
      const rest = caller.resume(turnIdOf(first), 40n);
      expect(await rest.end).toBeUndefined();
      expect(rest.events.map(bytesOf)).toEqual(first.events.slice(40).map(bytesOf));
    }
  });

  test("a turn that a replica runs is followed at the edge to its end, live", async () => {
    const begun = callerOf(replica).stream("", "a story", "");
    await spoken(begun);
    const followed = callerOf(worker, wire).resume(turnIdOf(begun));
    await spoken(followed);
    expect(finishOf(begun.events)).toBeUndefined();
    expect([await begun.end, await followed.end]).toEqual([undefined, undefined]);
    expect(followed.events.map(bytesOf)).toEqual(begun.events.map(bytesOf));
  });

  test("cursors that lead nowhere are refused, with what there is", async () => {
    const edge = callerOf(worker, wire);
    expectRefusal(await errorOf(edge.resume("nowhere")), { code: Code.NotFound, reason: "TURN_NOT_FOUND" });
    const first = edge.stream("", "a story", "");
    await first.end;
    const beyond = await errorOf(edge.resume(turnIdOf(first), 10_000n));
    expect(beyond.code).toBe(Code.OutOfRange);
  });

  test("a stream that is left, or comes to its deadline, ends its turn, and what was said is read", async () => {
    const edge = callerOf(worker, wire);
    const gone = new AbortController();
    const cut = edge.stream("", "cut", "", {}, { signal: gone.signal });
    await spoken(cut);
    gone.abort();
    const late = edge.stream("", "late", "", {}, { timeoutMs: 1_500 });
    await spoken(late);
    for (const [reading, finishReason] of [
      [cut, FinishReason.CANCELLED],
      [late, FinishReason.DEADLINE],
    ] as const) {
      const whole = callerOf(replica).resume(turnIdOf(reading));
      expect(await whole.end).toBeDefined();
      expect(finishOf(whole.events)).toBe(finishReason);
      expect(whole.text().startsWith(reading.text())).toBe(true);
      expect(WHOLE.startsWith(whole.text())).toBe(true);
    }
  });

  test("a reply's deadline ends its turn; of a client that leaves one workerd says nothing, and the turn is read by its key", async () => {
    const edge = callerOf(worker, wire);
    const key = wire.name.replaceAll(/\W/g, "-");
    const ask = (idempotencyKey: string) => ({ message: "a story", userId: USER, idempotencyKey });
    const late = ask(`late-${key}`);
    expect((await refusalOf(edge.chat.chat(late, { timeoutMs: 1_500 }))).code).toBe(Code.DeadlineExceeded);
    const left = ask(`left-${key}`);
    const leaving = new AbortController();
    const calls = model.callCount;
    const reply = refusalOf(edge.chat.chat(left, { signal: leaving.signal }));
    await eventually(() => expect(model.callCount).toBe(calls + 1));
    leaving.abort();
    expect((await reply).code).toBe(Code.Canceled);

    const atReplica = callerOf(replica);
    const read = async (request: typeof late) => {
      const whole = atReplica.stream("", request.message, "", { ...request, onDisconnect: OnDisconnect.CANCEL });
      await whole.end;
      return whole;
    };
    const lateTurn = await read(late);
    expect(finishOf(lateTurn.events)).toBe(FinishReason.DEADLINE);
    expect(lateTurn.text()).not.toBe(WHOLE);
    expect(WHOLE.startsWith(lateTurn.text())).toBe(true);
    const leftTurn = await read(left);
    expect(finishOf(leftTurn.events)).toBeOneOf([FinishReason.STOP, FinishReason.CANCELLED]);
    expect(WHOLE.startsWith(leftTurn.text())).toBe(true);
    expect(model.callCount).toBe(calls + 1);
  });
});

test("a turn whose isolate is lost is a replica's to end", async () => {
  const lost = await startEdge();
  const first = callerOf(lost, threeWires[0]).stream("", "a story", "");
  await spoken(first);
  const turnId = turnIdOf(first);
  await lost.stop();
  await first.end;
  const { chat, ...caller } = callerOf(replica);
  await eventually(async () => expect((await chat.getTurn({ turnId })).turn?.state).toBe(TurnState.FINISHED));
  const whole = caller.resume(turnId);
  await whole.end;
  const { events } = whole;
  expect(events.slice(0, first.events.length).map(bytesOf)).toEqual(first.events.map(bytesOf));
  expect(finishOf(events)).toBe(FinishReason.STOP);
  expect(expectWhole(events)).toEqual([WHOLE]);
});

test("parley/client streams and asks at the edge, and goes on at a replica", async () => {
  const edge = createParley({ baseUrl: worker.url });
  let text = "";
  let sessionId = "";
  for await (const { event } of edge.stream({ message: "a story", userId: USER }, { timeoutMs: 30_000 })) {
    if (event.case === "turnStarted") ({ sessionId } = event.value);
    if (event.case === "textDelta") text += event.value.text;
  }
  expect(text).toBe(WHOLE);
  const there = createParley({ baseUrl: replica.url });
  expect((await there.chat({ sessionId, message: "again", userId: USER })).response).toBe(WHOLE);
  const { messages } = await edge.sessions.listMessages({ sessionId });
  expect(messages).toHaveLength(4);
});
