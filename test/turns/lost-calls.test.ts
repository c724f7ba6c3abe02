import { create } from "@bufbuild/protobuf";
import { expect, test, vi } from "vitest";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { TurnLogEntrySchema } from "../../gen/parley/storage/v1/turn_log_pb.js";
import { createMemoryAccountStore } from "../../src/accounts/memory-account-store.ts";
import { Failure } from "../../src/failure.ts";
import { startLostCalls } from "../../src/turns/lost-calls.ts";
import { newTurnRef } from "../../src/turns/turn-id.ts";
import { call, settled, startedCall } from "../accounts/calls.ts";
import { chargesOf, ledgerOf } from "../support/ledger.ts";

test("a lost call is charged what its log says, though the log cannot be read at first", async () => {
  let nowMs = Date.now();
  const accounts = createMemoryAccountStore({ now: () => nowMs });
  const { turnId } = newTurnRef({ tenant: "acme", sessionId: "s1" });
  await startedCall(accounts, call("c1", { turnId, costMicroUsd: 100n, callMs: 1_000 }));
  await startedCall(accounts, call("c2", { turnId, costMicroUsd: 100n, callMs: 1_000 }));
  nowMs += 2_000;
  const usageRecord = settled("c1", { turnId, costMicroUsd: 7n });
  const readLog = vi.fn(async () => [create(TurnLogEntrySchema, { usageRecord })]);
  readLog.mockRejectedValueOnce(new Failure("STORE_UNAVAILABLE"));
  const lostCalls = startLostCalls({ accounts, store: { readLog }, onError: () => undefined });
  try {
    await vi.waitFor(
      async () => {
        const charges = chargesOf(await ledgerOf(accounts, "acme"));
        expect(charges.map(({ recordId, costMicroUsd, usageSource }) => [recordId, costMicroUsd, usageSource])).toEqual(
          [
            ["c1", 7n, UsageSource.PROVIDER],
            ["c2", 100n, UsageSource.HOLD_MAXIMUM],
          ],
        );
      },
      { timeout: 5_000 },
    );
  } finally {
    await lostCalls.stop();
  }
});
