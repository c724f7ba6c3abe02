import { beforeAll, describe, expect, test, vi } from "vitest";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { CallOutcome } from "../../gen/parley/usage/v1/usage_record_pb.js";
import { moneyKeys } from "../../src/accounts/account-keys.ts";
import { callerOf, errorOf, type Reading, turnIdOf } from "../app/clients.ts";
import { shareParts } from "../app/parts.ts";
import type { ServiceProcess } from "../support/service-process.ts";
import { callsOf, expectAddsUp, expectTrue, pairedUp, rowsOf } from "./bill.ts";

// The owner of a turn is killed between each two steps of DESIGN §4; the bill is read after another process has ended the
// turn. The turn makes three model calls: one that asks for a tool, its answer, and that of the agent that ends it.

const parts = shareParts();
let survivor: ServiceProcess;
beforeAll(async () => {
  survivor = await parts().startReplica({ LEASE_MS: "1000" });
});

interface Death {
  readonly dies: string;
  readonly at: string;
  /** Calls that the model saw: 3, and one more where one was cut. */
  readonly calls: number;
  /** What stands for each charge, in the order of the holds: P is the provider's count, H the whole hold, - a hold without a call. */
  readonly charges: string;
}

const deaths: readonly Death[] = [
  { dies: "when the first call is prepared", at: "after begin 1", calls: 3, charges: "PPP" },
  { dies: "after the hold, before the start", at: "after hold 1", calls: 3, charges: "PPP" },
  { dies: "after the start, before the request is sent", at: "after start 1", calls: 3, charges: "-PPP" },
  { dies: "when the request is sent, before its first text", at: "before textDelta 1", calls: 4, charges: "HPPP" },
  { dies: "amid the answer", at: "after textDelta 1", calls: 4, charges: "HPPP" },
  { dies: "after the answer, before the result", at: "before model 1", calls: 4, charges: "HPPP" },
  { dies: "after the result", at: "after model 1", calls: 3, charges: "PPP" },
  { dies: "after it is settled", at: "after settle 1", calls: 3, charges: "PPP" },
  { dies: "when the second call is prepared", at: "after prepared 1", calls: 3, charges: "PPP" },
  { dies: "after the second call's hold", at: "after hold 2", calls: 3, charges: "PPP" },
  { dies: "after the second call's start", at: "after start 2", calls: 3, charges: "P-PP" },
  { dies: "after the second call's answer, before its result", at: "before model 2", calls: 4, charges: "PHPP" },
  { dies: "before the second call is settled", at: "before settle 2", calls: 3, charges: "PPP" },
  { dies: "before the turn's commit", at: "before commit 1", calls: 4, charges: "PPHP" },
];

/** What a charge stands for. */
const SIGNS: Partial<Record<UsageSource, string>> = { [UsageSource.PROVIDER]: "P", [UsageSource.HOLD_MAXIMUM]: "H" };

describe.concurrent("a turn's owner is killed", () => {
  test.each(deaths)("$dies: the bill adds up, call by call", async ({ at, calls: seen, charges: signs }) => {
    const { startReplica, model, redis } = parts();
    const owner = await startReplica({ LEASE_MS: "1000", DIE_AT: at });
    const message = `killed ${at}`;
    const cut = callerOf(owner).stream("", message, "pay");
    await errorOf(cut);
    expect(await owner.ended).toMatchObject({ signal: "SIGKILL" });
    const turnId = turnIdOf(cut) || (await turnThatSays(message));
    const reading = callerOf(survivor).resume(turnId);
    expect(await reading.end).toBeUndefined();

    const charges = await vi.waitFor(
      async () => {
        const all = (await rowsOf(redis)).filter((row) => row.turnId === turnId);
        expect(all).toHaveLength(signs.length);
        return all.toSorted((a, b) => a.recordId.localeCompare(b.recordId, "en", { numeric: true }));
      },
      { timeout: 10_000 },
    );
    const calls = callsOf(model.calls, message);
    expect(calls).toHaveLength(seen);
    expect(charges.map(({ usageSource }) => SIGNS[usageSource]).join("")).toBe(signs.replace("-", "H"));
    for (const charge of charges) {
      const lost = charge.usageSource === UsageSource.HOLD_MAXIMUM;
      expect(charge.outcome).toBe(lost ? CallOutcome.LOST : CallOutcome.OK);
      expect(charge.correctsRecordId).toBe("");
    }
    const withoutCall = signs.includes("-") ? 1 : 0;
    for (const { charge, call } of pairedUp(charges, calls, { withoutCall })) expectTrue(charge, call);
    expectToldOnce(
      reading,
      charges.map(({ costMicroUsd }) => costMicroUsd),
    );
  });
});

test("all in all ledger and counters are the same, and nothing is held", async () => {
  const { redis, model } = parts();
  const charges = await expectAddsUp(redis);
  const withoutCall = deaths.filter(({ charges: signs }) => signs.includes("-")).length;
  expect(charges).toHaveLength(model.callCount + withoutCall);
});

describe("a call that nobody goes on with", () => {
  /** Kills a process at a step, lets the call's time be over, and has only the sweeper of another process look after it. */
  async function sweptAfter(at: string, message: string) {
    const { startReplica, ask, redis } = parts();
    const owner = await startReplica({ LEASE_MS: "3600000", DIE_AT: at });
    const cut = callerOf(owner).stream("", message, "quick");
    await errorOf(cut);
    const callId = `${turnIdOf(cut)}/1/1.1`;
    await ask(async (client) => {
      const { started, callPrefix } = moneyKeys("default");
      expect(await client.hget(`${callPrefix}${callId}`, "state")).toBe("started");
      await client.hset(`${callPrefix}${callId}`, "until", "1");
      await client.zadd(started, 1, callId);
    });
    return await vi.waitFor(
      async () => {
        const rows = (await rowsOf(redis)).filter(({ turnId }) => turnId === turnIdOf(cut));
        expect(rows).not.toEqual([]);
        return rows;
      },
      { timeout: 10_000 },
    );
  }

  test("is charged in full when its time is over", async () => {
    expect(await sweptAfter("after start 1", "nobody comes back")).toMatchObject([
      { usageSource: UsageSource.HOLD_MAXIMUM, outcome: CallOutcome.LOST },
    ]);
  });

  test("is charged what its turn's log says", async () => {
    const message = "it stands in the log";
    const rows = await sweptAfter("before settle 1", message);
    expect(rows).toMatchObject([{ usageSource: UsageSource.PROVIDER, outcome: CallOutcome.OK }]);
    const charges = await expectAddsUp(parts().redis);
    const charge = charges.find(({ recordId }) => recordId === rows[0]?.recordId);
    const [call] = callsOf(parts().model.calls, message);
    if (call !== undefined) expectTrue(charge, call);
  });
});

/** A reader is told of each charge once. */
function expectToldOnce({ events }: Reading, costs: readonly bigint[]): void {
  const told = events.flatMap(({ event }) => (event.case === "usageRecorded" ? [event.value.costMicroUsd] : []));
  expect(told.toSorted()).toEqual(costs.toSorted());
  const end = events.at(-1)?.event;
  expect(end?.case === "turnCompleted" && end.value.costMicroUsd).toBe(costs.reduce((sum, cost) => sum + cost, 0n));
}

/** The turn that a message began, where its caller was told nothing. */
async function turnThatSays(message: string): Promise<string> {
  return await parts().ask(async (client) => {
    for (const key of await client.keys("*:turn:*")) {
      if ((await client.hgetBuffer(key, "record"))?.includes(message)) return key.replace(/^.*:turn:/, "");
    }
    throw new Error("there is no such turn");
  });
}
