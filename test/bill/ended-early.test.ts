import { beforeAll, describe, expect, test, vi } from "vitest";
import { OnBusy, OnDisconnect } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { CallOutcome, type UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import { tokenizerFor } from "../../src/engine/tokenizer.ts";
import { callerOf, type Reading, spoken, turnIdOf } from "../app/clients.ts";
import { shareParts } from "../app/parts.ts";
import { eventually } from "../support/eventually.ts";
import { chargesOf } from "../support/ledger.ts";
import type { ServiceProcess } from "../support/service-process.ts";
import { callsOf, expectAddsUp, expectTrue, rowsOf } from "./bill.ts";

// Turns that somebody ends amid a model call: what the model said by then is paid for, and no more than its owner knows.

const parts = shareParts();
let a: ServiceProcess;
let b: ServiceProcess;
beforeAll(async () => {
  [a, b] = await parts().startTwo({ LEASE_MS: "2000" });
});

/** The turn's one charge, once it is what it should be. */
async function chargeOf(turnId: string, expected: Partial<UsageRecord>): Promise<UsageRecord> {
  return await vi.waitFor(
    async () => {
      const [charge, ...others] = chargesOf(await rowsOf(parts().redis)).filter((row) => row.turnId === turnId);
      expect(others).toEqual([]);
      expect(charge).toMatchObject(expected);
      return charge as UsageRecord;
    },
    { timeout: 20_000, interval: 100 },
  );
}

/** Checks that the charge is for what was said, no less than was read and no more than the model counted. */
async function expectSaid(reading: Reading, message: string, outcome = CallOutcome.CANCELLED): Promise<void> {
  const charge = await chargeOf(turnIdOf(reading), { usageSource: UsageSource.TOKENIZER_ESTIMATE, outcome });
  const [call, ...others] = callsOf(parts().model.calls, message);
  expect(others).toEqual([]);
  if (call === undefined) throw new Error("the model saw no call");
  await eventually(() => expect(call.state).toBe("closed_by_client"));
  expectTrue(charge, call, { delivered: tokenizerFor(call.model).countText(reading.text()) });
  expect(charge.promptTokens).toBe(BigInt(call.promptTokens));
  expect(Number(charge.completionTokens)).toBeLessThanOrEqual(call.completionTokens);
}

test.each([
  ["ends the turn with its call", OnDisconnect.CANCEL],
  ["lets the turn go on", OnDisconnect.CONTINUE],
])("a client that goes away amid a stream and %s", async (how, onDisconnect) => {
  const message = `gone: ${how}`;
  const client = new AbortController();
  const caller = callerOf(a);
  const reading = caller.stream("", message, "slow", { onDisconnect }, { signal: client.signal });
  await spoken(reading);
  client.abort();
  await reading.end;
  if (onDisconnect === OnDisconnect.CANCEL) return await expectSaid(reading, message);
  const charge = await chargeOf(turnIdOf(reading), { usageSource: UsageSource.PROVIDER, outcome: CallOutcome.OK });
  const [call] = callsOf(parts().model.calls, message);
  if (call !== undefined) expectTrue(charge, call);
});

test.each(["the owner", "another process"])("a cancel through %s", async (through) => {
  const message = `cancelled through ${through}`;
  const reading = callerOf(a).stream("", message, "slow");
  await spoken(reading);
  await callerOf(through === "the owner" ? a : b).chat.cancelTurn({ turnId: turnIdOf(reading) });
  await reading.end;
  await expectSaid(reading, message);
});

describe("INTERRUPT", () => {
  test.each(["the owner", "another process"])(
    "of an owner that lives, through %s, charges what it knows",
    async (by) => {
      const message = `interrupted by ${by}`;
      const caller = callerOf(a);
      const sessionId = await caller.createSession();
      const reading = caller.stream(sessionId, message, "endless");
      await spoken(reading);
      const next = callerOf(by === "the owner" ? a : b).stream(sessionId, "stop!", "quick", {
        onBusy: OnBusy.INTERRUPT,
      });
      expect(await next.end).toBeUndefined();
      await reading.end;
      const charge = await chargeOf(turnIdOf(reading), { usageSource: UsageSource.TOKENIZER_ESTIMATE });
      const [call] = callsOf(parts().model.calls, message);
      if (call !== undefined) {
        expectTrue(charge, call, { delivered: Buffer.byteLength(reading.text()) });
        expect(Number(charge.completionTokens)).toBeLessThanOrEqual(call.completionTokens);
      }
    },
  );

  test("of an owner that is dead charges the whole hold", async () => {
    const owner = await parts().startService({ LEASE_MS: "20000" });
    const caller = callerOf(b);
    const sessionId = await caller.createSession();
    const reading = callerOf(owner).stream(sessionId, "dead soon", "endless");
    await spoken(reading);
    await owner.kill();
    expect(await caller.stream(sessionId, "stop!", "quick", { onBusy: OnBusy.INTERRUPT }).end).toBeUndefined();
    const charge = await chargeOf(turnIdOf(reading), {
      usageSource: UsageSource.HOLD_MAXIMUM,
      outcome: CallOutcome.LOST,
    });
    const [call] = callsOf(parts().model.calls, "dead soon");
    if (call !== undefined) expectTrue(charge, call, { delivered: Buffer.byteLength(reading.text()) });
    expect(charge.completionTokens).toBe(BigInt(Number(call?.body.max_completion_tokens)));
  });

  test("of an owner that stands still charges the whole hold, and what it knows once it wakes up", async () => {
    const owner = await parts().startService({ LEASE_MS: "20000" });
    const caller = callerOf(b);
    const sessionId = await caller.createSession();
    const message = "asleep soon";
    const reading = callerOf(owner).stream(sessionId, message, "endless");
    await spoken(reading);
    owner.send("SIGSTOP");
    expect(await caller.stream(sessionId, "stop!", "quick", { onBusy: OnBusy.INTERRUPT }).end).toBeUndefined();
    const lost = await chargeOf(turnIdOf(reading), { usageSource: UsageSource.HOLD_MAXIMUM });
    owner.send("SIGCONT");
    const charge = await chargeOf(turnIdOf(reading), {
      usageSource: UsageSource.TOKENIZER_ESTIMATE,
      outcome: CallOutcome.CANCELLED,
    });
    expect(charge.costMicroUsd).toBeLessThan(lost.costMicroUsd);
    const [call] = callsOf(parts().model.calls, message);
    if (call !== undefined) expectTrue(charge, call, { delivered: Buffer.byteLength(reading.text()) });
    // The charge, and one correction.
    expect((await rowsOf(parts().redis)).filter(({ turnId }) => turnId === turnIdOf(reading))).toHaveLength(2);
  });
});

test("all in all each call has one charge, and nothing is held", async () => {
  const charges = await expectAddsUp(parts().redis);
  expect(charges).toHaveLength(parts().model.callCount);
});
