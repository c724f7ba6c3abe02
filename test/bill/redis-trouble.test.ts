import { expect, onTestFinished, test, vi } from "vitest";
import { callerOf, type Reading, spoken, turnIdOf } from "../app/clients.ts";
import { type Parts, startParts } from "../app/parts.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { chargesOf } from "../support/ledger.ts";
import { callsOf, expectAddsUp, expectTrue, pairedUp, rowsOf } from "./bill.ts";

// Redis is killed, or its answers are lost, amid calls: the bill is the model's own, call by call.

const TURNS = 12;

/** Waits for all turns, wherever they end, and compares their charges with the model's books. */
async function expectBilled(
  { redis, model }: Parts,
  turns: readonly { message: string; reading: Reading }[],
): Promise<void> {
  await expectAddsUp(redis);
  for (const { message } of turns) {
    const calls = callsOf(model.calls, message);
    expect(calls.length, message).toBeGreaterThan(0);
    const turnIds = new Set(turns.filter((turn) => turn.message === message).map(({ reading }) => turnIdOf(reading)));
    const charges = chargesOf(await rowsOf(redis)).filter(({ turnId }) => turnIds.has(turnId));
    for (const { charge, call } of pairedUp(charges, calls)) expectTrue(charge, call);
  }
  expect(chargesOf(await rowsOf(redis))).toHaveLength(model.callCount);
}

test("Redis is killed amid calls and comes back with its append-only file", async () => {
  const parts = await startParts({ appendOnly: true });
  const service = await parts.startService();
  const caller = callerOf(service);
  const turns = Array.from({ length: TURNS }, (_, index) => {
    const message = `through the restart ${index}`;
    return { message, reading: caller.stream("", message, "slow") };
  });
  for (const { reading } of turns) await spoken(reading);
  await parts.redis.restart();
  for (const { reading } of turns) await reading.end;
  await vi.waitFor(async () => expect(await service.metric("parley_turns_in_flight")).toBe(0), { timeout: 20_000 });
  await expectBilled(parts, turns);
});

test("answers of Redis are lost, and what was asked is asked again", async () => {
  const parts = await startParts({ appendOnly: true });
  const proxy = await startFaultProxy(parts.redis);
  onTestFinished(() => proxy.stop());
  const service = await parts.startService({ REDIS_URL: `redis://127.0.0.1:${proxy.port}`, LEASE_MS: "5000" });
  const caller = callerOf(service);
  proxy.lose(0.01, 7);
  const turns: { message: string; reading: Reading }[] = [];
  // However many the losses keep from being admitted.
  for (let round = 0; round < 5 || turns.length <= TURNS; round++) {
    const some = Array.from({ length: TURNS }, (_, index) => {
      const message = `lossy ${round} ${index}`;
      return { message, reading: caller.stream("", message, "quick") };
    });
    for (const { reading } of some) await reading.end;
    // Who was not admitted has no turn, and is nobody's concern.
    turns.push(...some.filter(({ reading }) => turnIdOf(reading) !== ""));
  }
  proxy.heal();
  await vi.waitFor(async () => expect(await service.metric("parley_turns_in_flight")).toBe(0), { timeout: 20_000 });
  await expectAddsUp(parts.redis);
  const charges = chargesOf(await rowsOf(parts.redis));
  expect(new Set(charges.map(({ recordId }) => recordId)).size).toBe(charges.length);
  for (const { message, reading } of turns) {
    const ofTurn = charges.filter(({ turnId }) => turnId === turnIdOf(reading));
    for (const { charge, call } of pairedUp(ofTurn, callsOf(parts.model.calls, message))) expectTrue(charge, call);
  }
  expect(charges).toHaveLength(parts.model.callCount);
});
