import { createClient } from "@connectrpc/connect";
import { beforeAll, describe, expect, test } from "vitest";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { FinishReason, TurnState } from "../../gen/parley/chat/v1/turn_pb.js";
import { threeWires, wires } from "../rpc/wires.ts";
import { eventually } from "../support/eventually.ts";
import type { ServiceProcess } from "../support/service-process.ts";
import {
  bytesOf,
  type Caller,
  callerOf,
  errorOf,
  expectWhole,
  finishOf,
  type Reading,
  spoken,
  turnIdOf,
} from "./clients.ts";
import { shareParts } from "./parts.ts";

// A turn is begun on one process and read on by others, from wherever a reader stopped.

const parts = shareParts();
let services: ServiceProcess[];
let a: Caller;
let b: Caller;

beforeAll(async () => {
  const { startReplica } = parts();
  services = await Promise.all([startReplica(), startReplica()]);
  [a, b] = services.map((service) => callerOf(service)) as [Caller, Caller];
});

/** A turn with text, a tool call and two agents, read to its end. */
async function wholeTurn(caller: Caller): Promise<Reading> {
  const reading = caller.stream("", "pay the bill", "pay");
  expect(await reading.end).toBeUndefined();
  expectWhole(reading.events);
  return reading;
}

test.concurrent("a finished turn replays byte for byte from every cursor, on each process and protocol", async () => {
  const first = await wholeTurn(a);
  const turnId = turnIdOf(first);
  const bytes = first.events.map(bytesOf);
  expect(bytes.length).toBeGreaterThan(12);
  for (const [index, service] of services.entries()) {
    for (const wire of threeWires) {
      const caller = callerOf(service, wire);
      const cursors = index === 0 && wire !== threeWires[1] ? [0] : bytes.map((_, sequence) => sequence);
      await Promise.all(
        cursors.map(async (cursor) => {
          const reading = caller.resume(turnId, BigInt(cursor));
          expect(await reading.end).toBeUndefined();
          expect(reading.events.map(bytesOf)).toEqual(bytes.slice(cursor));
        }),
      );
    }
  }
});

test.concurrent("a running turn is replayed and then tailed, so that every reader of every process has the same bytes", async () => {
  const sessionId = await a.createSession();
  const first = a.stream(sessionId, "go on", "slow");
  await spoken(first);
  const readings: { from: bigint; reading: Reading }[] = [];
  // Begin at other places while it goes on, before, at and beyond what is there.
  for (let round = 0; round < 4; round++) {
    const seen = first.events.length;
    for (const [index, service] of services.entries()) {
      const from = BigInt(Math.max(0, seen - 2 + round + index));
      const caller = callerOf(service, threeWires[round % 3]);
      readings.push({ from, reading: caller.resume(turnIdOf(first), from) });
    }
    await eventually(() => expect(first.events.length).toBeGreaterThan(seen + 2));
  }
  expect(await first.end).toBeUndefined();
  const bytes = first.events.map(bytesOf);
  for (const { from, reading } of readings) {
    expect(await reading.end).toBeUndefined();
    expect(reading.events.map(bytesOf)).toEqual(bytes.slice(Number(from)));
  }
});

test.concurrent("who has read a turn's end learns how it ended and nothing else", async () => {
  const whole = await wholeTurn(a);
  const atEnd = b.resume(turnIdOf(whole), BigInt(whole.events.length), { timeoutMs: 5_000 });
  expect(await atEnd.end).toBeUndefined();
  expect(atEnd.events).toEqual([]);

  const cut = a.stream("", "go on", "endless");
  await spoken(cut);
  await b.chat.cancelTurn({ turnId: turnIdOf(cut) });
  const error = await errorOf(cut);
  const again = b.resume(turnIdOf(cut), BigInt(cut.events.length), { timeoutMs: 5_000 });
  expect(await errorOf(again)).toMatchObject({ code: error.code, rawMessage: error.rawMessage });
  expect(again.events).toEqual([]);
  // And from anywhere before it.
  const replay = b.resume(turnIdOf(cut), 0n);
  expect(await errorOf(replay)).toMatchObject({ code: error.code, rawMessage: error.rawMessage });
  expect(replay.events.map(bytesOf)).toEqual(cut.events.map(bytesOf));
});

describe.concurrent("a cursor that no log can go on from", () => {
  /** Code and metadata of the refusal, on each protocol. */
  async function refusals(turnId: string, afterSequence: bigint) {
    return await Promise.all(
      threeWires.map(async (wire, index) => {
        const caller = callerOf(services[index % 2] as ServiceProcess, wire);
        const error = await errorOf(caller.resume(turnId, afterSequence, { timeoutMs: 20_000 }));
        const [info] = error.findDetails(ErrorInfoSchema);
        return { code: error.code, reason: info?.reason, metadata: info?.metadata };
      }),
    );
  }
  const outOfRange = 11;

  test.concurrent("beyond the end of a finished turn is refused with what there is", async () => {
    const whole = await wholeTurn(a);
    const metadata = { oldest_sequence: "1", newest_sequence: String(whole.events.length) };
    for (const beyond of [BigInt(whole.events.length + 1), 1_000_000n]) {
      const all = await refusals(turnIdOf(whole), beyond);
      for (const one of all) expect(one).toEqual({ code: outOfRange, reason: "CURSOR_OUT_OF_RANGE", metadata });
    }
  });

  test.concurrent("beyond all that a running turn will say is refused when it has ended", async () => {
    const running = a.stream("", "go on", "slow");
    await spoken(running);
    const refused = refusals(turnIdOf(running), 1_000_000n);
    expect(await running.end).toBeUndefined();
    const metadata = { oldest_sequence: "1", newest_sequence: String(running.events.length) };
    for (const one of await refused) expect(one).toEqual({ code: outOfRange, reason: "CURSOR_OUT_OF_RANGE", metadata });
  });

  test.concurrent("before the oldest entry that was not trimmed is refused with what there is, and that can be read", async () => {
    const whole = await wholeTurn(a);
    const turnId = turnIdOf(whole);
    const length = whole.events.length;
    await parts().ask(async (redis) => {
      const [key] = await redis.keys(`*log:${turnId}`);
      await redis.xtrim(key ?? "", "MAXLEN", "=", 5);
    });
    const metadata = { oldest_sequence: String(length - 4), newest_sequence: String(length) };
    for (const trimmed of [0n, BigInt(length - 6)]) {
      const all = await refusals(turnId, trimmed);
      for (const one of all) expect(one).toEqual({ code: outOfRange, reason: "TURN_LOG_TRIMMED", metadata });
    }
    const rest = b.resume(turnId, BigInt(length - 5));
    expect(await rest.end).toBeUndefined();
    expect(rest.events.map(bytesOf)).toEqual(whole.events.slice(-5).map(bytesOf));
  });

  test.concurrent("of a turn that never was, has expired or was deleted with its session is not found", async () => {
    const [expired, deleted] = await Promise.all([wholeTurn(a), wholeTurn(a)]);
    await parts().ask(async (redis) => {
      for (const key of await redis.keys(`*${turnIdOf(expired)}`)) await redis.pexpire(key, 1);
    });
    const [{ event }] = deleted.events as [Reading["events"][number]];
    await a.sessions.deleteSession({ sessionId: event.case === "turnStarted" ? event.value.sessionId : "" });
    const never = turnIdOf(expired).replace(/.{16}$/, "AAAAAAAAAAAAAAAA");
    for (const turnId of [never, turnIdOf(expired), turnIdOf(deleted)]) {
      const all = await refusals(turnId, 0n);
      for (const { code, reason } of all) expect([code, reason]).toEqual([5, "TURN_NOT_FOUND"]);
    }
  });
});

test.concurrent("every protocol, and a GET of Connect's, says where a turn stands", async () => {
  const cut = a.stream("", "go on", "endless");
  await spoken(cut);
  const turnId = turnIdOf(cut);
  for (const wire of wires) {
    const chat = createClient(ChatService, wire.transport(services[1]?.url ?? "", { useHttpGet: true }));
    const { turn } = await chat.getTurn({ turnId });
    expect(turn).toMatchObject({ turnId, state: TurnState.RUNNING });
    expect(turn?.lastSequence).toBeGreaterThan(2n);
  }
  await b.chat.cancelTurn({ turnId });
  await cut.end;
  for (const wire of wires) {
    const chat = createClient(ChatService, wire.transport(services[1]?.url ?? "", { useHttpGet: true }));
    const { turn } = await chat.getTurn({ turnId });
    const finishReason = FinishReason.CANCELLED;
    expect(turn).toMatchObject({ state: TurnState.FINISHED, finishReason, lastSequence: BigInt(cut.events.length) });
  }
  expect(finishOf(cut.events)).toBe(FinishReason.CANCELLED);
});

test.concurrent("a reader of a silent turn hears a heartbeat, on its own process and on another", {
  timeout: 40_000,
}, async () => {
  const begun = a.stream("", "say nothing", "silent");
  await eventually(() => expect(begun.events).not.toEqual([]));
  const resumed = [...services.entries()].map(([index, service]) =>
    callerOf(service, threeWires[index]).resume(turnIdOf(begun), 0n),
  );
  for (const reading of [begun, ...resumed]) {
    await eventually(() => expect(reading.heartbeats).toBeGreaterThan(0), { timeout: 25_000 });
  }
  await b.chat.cancelTurn({ turnId: turnIdOf(begun) });
  for (const reading of [begun, ...resumed]) await errorOf(reading);
  for (const reading of resumed) expect(reading.events.map(bytesOf)).toEqual(begun.events.map(bytesOf));
});
