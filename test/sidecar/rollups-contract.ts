import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Rollups } from "../../sidecar/rollups.ts";
import type { AccountStore } from "../../src/accounts/account-store.ts";
import { periodOf } from "../../src/accounts/budget-periods.ts";
import { call, settled, startedCall } from "../accounts/calls.ts";
import { applyAll, checkRollups } from "./rollup-sums.ts";

/** What a contract run needs of an adapter. */
export interface RollupSubject {
  start(): Promise<void>;
  /** Accounts on empty state, and the rollups of one sidecar over them. */
  open(): Promise<{ accounts: AccountStore; rollups: Rollups }>;
  stop(): Promise<void>;
}

const tenant = "acme";
const HOUR_MS = 3_600_000;

/** What all rollups must do, whatever they are made of. */
export function describeRollupContract(name: string, subject: RollupSubject): void {
  describe(`the rollup contract: ${name}`, () => {
    let accounts: AccountStore;
    let rollups: Rollups;
    beforeAll(() => subject.start());
    afterAll(() => subject.stop());
    beforeEach(async () => {
      ({ accounts, rollups } = await subject.open());
    });
    const spend = async (recordId: string, init: Parameters<typeof settled>[1] = {}) => {
      await startedCall(accounts, call(recordId, init));
      await accounts.settle(settled(recordId, { priceVersion: "v", ...init }));
    };

    it("knows the accounts that have held calls", async () => {
      await spend("c1");
      await spend("c1", { tenant: "other" });
      expect((await rollups.tenants()).toSorted()).toEqual(["acme", "other"]);
    });

    it("has nothing to do for an account without a ledger", async () => {
      expect(await rollups.take(tenant, 10)).toEqual([]);
      expect((await rollups.apply(tenant, [])).entries).toEqual([]);
      expect(await rollups.standing(tenant)).toEqual({ pending: 0, lagMs: 0 });
      expect(await rollups.costThisMonth(tenant)).toBe(0n);
    });

    it("sums by hour, day and month, and by team, user, use case, agent, model and version", async () => {
      await spend("c1", { costMicroUsd: 7n, promptTokens: 5n, cachedPromptTokens: 2n, completionTokens: 3n });
      await spend("c2", { costMicroUsd: 9n, reasoningTokens: 1n });
      await spend("c3", { team: "blue" });
      await spend("c4", { userId: 'b"ob\u00fc' });
      await spend("c5", { useCase: "" });
      await spend("c6", { agent: "critic" });
      await spend("c7", { model: "o3" });
      await spend("c8", { version: "2.0.0" });
      expect(await applyAll(rollups, tenant)).toBe(8);
      expect(await checkRollups(rollups, accounts, tenant)).toEqual({ rows: 8 });
      const { startMs } = periodOf("month", Date.now());
      const groups = await Array.fromAsync(rollups.read(tenant, "month", startMs));
      expect(groups).toHaveLength(7);
    });

    it("counts a row once, however often it is applied, and says which were new", async () => {
      for (let index = 0; index < 5; index += 1) await spend(`c${index}`);
      const entries = await rollups.take(tenant, 3);
      expect((await rollups.apply(tenant, entries)).entries).toHaveLength(3);
      await applyAll(rollups, tenant);
      expect((await rollups.apply(tenant, entries)).entries).toEqual([]);
      await checkRollups(rollups, accounts, tenant);
    });

    it("counts corrections as the differences that they are, in the periods of the call's hold", async () => {
      await spend("c1", { costMicroUsd: 100n, promptTokens: 10n });
      await startedCall(accounts, call("c2", { costMicroUsd: 500n }));
      await accounts.lose({ tenant, callId: "c2" });
      await applyAll(rollups, tenant);
      await accounts.correct(settled("c1", { costMicroUsd: 40n, promptTokens: 8n, priceVersion: "w" }));
      await accounts.settle(settled("c2", { costMicroUsd: 1n, priceVersion: "w" }));
      await applyAll(rollups, tenant);
      await checkRollups(rollups, accounts, tenant);
      expect(await rollups.costThisMonth(tenant)).toBe(41n);
    });

    it("puts a call into the hour of its hold, though it is settled an hour later", async () => {
      const holdTimeMs = Date.now() - HOUR_MS;
      await accounts.settle(settled("late", { priceVersion: "v", holdTime: timestampFromMs(holdTimeMs) }));
      await applyAll(rollups, tenant);
      const { startMs } = periodOf("hour", holdTimeMs);
      expect(await Array.fromAsync(rollups.read(tenant, "hour", startMs))).toMatchObject([{ calls: 1n }]);
      const running = periodOf("hour", Date.now()).startMs;
      expect(await Array.fromAsync(rollups.read(tenant, "hour", running))).toEqual([]);
    });

    it("counts tokens as unpriced until a correction brings a price", async () => {
      await spend("c1", { priceVersion: "", promptTokens: 30n, completionTokens: 4n });
      await spend("c2", { priceVersion: "", promptTokens: 1n, completionTokens: 1n });
      await applyAll(rollups, tenant);
      await checkRollups(rollups, accounts, tenant);
      const unpriced = async () => {
        const groups = await Array.fromAsync(rollups.read(tenant, "month", periodOf("month", Date.now()).startMs));
        return groups.reduce((sum, { unpricedTokens }) => sum + unpricedTokens, 0n);
      };
      expect(await unpriced()).toBe(36n);
      await accounts.correct(
        settled("c1", { priceVersion: "v", costMicroUsd: 50n, promptTokens: 30n, completionTokens: 4n }),
      );
      await applyAll(rollups, tenant);
      await checkRollups(rollups, accounts, tenant);
      expect(await unpriced()).toBe(2n);
    });

    it("adds amounts beyond 2^53 exactly", async () => {
      const huge = 9_000_000_000_000_000_001n;
      await spend("c1", { costMicroUsd: huge });
      await applyAll(rollups, tenant);
      await accounts.correct(settled("c1", { priceVersion: "v", costMicroUsd: 3n }));
      await spend("c2", { costMicroUsd: 12_345_678_901_234_567n });
      await applyAll(rollups, tenant);
      await checkRollups(rollups, accounts, tenant);
      expect(await rollups.costThisMonth(tenant)).toBe(12_345_678_901_234_570n);
      await accounts.amend(tenant, [
        {
          difference: settled("less", {
            correctsRecordId: "c2",
            priceVersion: "v",
            promptTokens: 0n,
            completionTokens: 0n,
            costMicroUsd: -12_345_678_901_234_571n,
            holdTime: timestampFromMs(Date.now()),
          }),
        },
      ]);
      await applyAll(rollups, tenant);
      await checkRollups(rollups, accounts, tenant);
      expect(await rollups.costThisMonth(tenant)).toBe(-1n);
    });

    it("says how many rows are due, and for how long", async () => {
      await spend("c1");
      await spend("c2");
      expect((await rollups.standing(tenant)).pending).toBe(2);
      await new Promise((resolve) => setTimeout(resolve, 30));
      expect((await rollups.standing(tenant)).lagMs).toBeGreaterThan(20);
      const entries = await rollups.take(tenant, 1);
      expect(await rollups.standing(tenant)).toMatchObject({ pending: 2 });
      await rollups.apply(tenant, entries);
      expect(await rollups.standing(tenant)).toMatchObject({ pending: 1 });
      await applyAll(rollups, tenant);
      expect(await rollups.standing(tenant)).toEqual({ pending: 0, lagMs: 0 });
    });
  });
}
