import { create, equals } from "@bufbuild/protobuf";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { BudgetPeriod } from "../../gen/parley/usage/v1/budget_pb.js";
import { CallOutcome, type UsageRecord, UsageRecordSchema } from "../../gen/parley/usage/v1/usage_record_pb.js";
import type { AccountStore } from "../../src/accounts/account-store.ts";
import { periodOf } from "../../src/accounts/budget-periods.ts";
import { BudgetRefusal } from "../../src/accounts/budget-refusal.ts";
import type { ConfiguredBudget } from "../../src/accounts/budgets.ts";
import { Failure } from "../../src/failure.ts";
import { expectFailure } from "../store/store-contract.ts";
import { eventually } from "../support/eventually.ts";
import { ledgerOf } from "../support/ledger.ts";
import { budgetOf, call, checkAccount, held, refusalOf, settled, startedCall } from "./calls.ts";

/** What a contract run needs of an adapter. */
export interface AccountSubject {
  start(): Promise<void>;
  /** Accounts on empty state. */
  open(budgets?: readonly ConfiguredBudget[]): Promise<AccountStore>;
  stop(): Promise<void>;
}

const tenant = "acme";
const HUGE = 9_000_000_000_000_000_000n;

/** What all accounts must do, whatever they are made of. */
export function describeAccountContract(name: string, subject: AccountSubject): void {
  describe(`the account contract: ${name}`, () => {
    let store: AccountStore;
    beforeAll(() => subject.start(), 60_000);
    afterAll(() => subject.stop(), 60_000);
    beforeEach(async () => {
      store = await subject.open();
    });

    const setMonth = (
      scope: "tenant:acme" | `user:${string}`,
      limits: { money?: bigint; tokens?: bigint; dry?: boolean },
    ) =>
      store.setBudget(tenant, {
        scope,
        period: "month",
        ...(limits.money === undefined ? {} : { limitMicroUsd: limits.money }),
        ...(limits.tokens === undefined ? {} : { limitTokens: limits.tokens }),
        dryRun: limits.dry ?? false,
      });

    describe("a call", () => {
      it("is held on all its scopes, then charged what it cost, and nothing stays held", async () => {
        const scopes = ["tenant:acme", "team:red", "user:ann", "use_case:help", "session:s1"] as const;
        for (const scope of scopes) {
          for (const period of ["hour", "day", "month"] as const) {
            await store.setBudget(tenant, { scope, period, limitMicroUsd: 1_000n, limitTokens: 1_000n, dryRun: false });
          }
        }
        const held1 = await store.hold(call("c1", { costMicroUsd: 100n, promptTokens: 10n, completionTokens: 20n }));
        expect(held1).toMatchObject({ state: "held", wouldRefuse: [] });
        const during = await store.budgets(tenant);
        expect(during).toHaveLength(15);
        for (const budget of during) {
          expect(budget).toMatchObject({ spentMicroUsd: 0n, spentTokens: 0n, heldMicroUsd: 100n, heldTokens: 30n });
        }
        expect(await store.start({ tenant, callId: "c1" }, "me")).toBe("started");
        const outcome = await store.settle(
          settled("c1", { costMicroUsd: 60n, promptTokens: 9n, completionTokens: 8n }),
        );
        expect(outcome.state).toBe("settled");
        for (const budget of await store.budgets(tenant)) {
          expect(budget).toMatchObject({ spentMicroUsd: 60n, spentTokens: 17n, heldMicroUsd: 0n, heldTokens: 0n });
        }
        expect(await ledgerOf(store, tenant)).toMatchObject([
          { recordId: "c1", costMicroUsd: 60n, sessionId: "s1", agent: "assistant", model: "gpt-4" },
        ]);
        await checkAccount(store, tenant);
      });

      it("belongs to the time of its hold, which its row has", async () => {
        const before = Date.now();
        const { holdTimeMs } = await store.hold(call("c1")).then(held);
        expect(Math.abs(holdTimeMs - before)).toBeLessThan(5_000);
        await store.start({ tenant, callId: "c1" }, "me");
        await store.settle(settled("c1"));
        const [row] = await ledgerOf(store, tenant);
        expect(Number(row?.holdTime?.seconds) * 1_000 + (row?.holdTime?.nanos ?? 0) / 1e6).toBe(holdTimeMs);
      });

      it("is held once, however often it is asked for", async () => {
        await setMonth("user:ann", { money: 150n });
        const first = await store.hold(call("c1", { costMicroUsd: 100n })).then(held);
        expect(await store.hold(call("c1", { costMicroUsd: 100n }))).toEqual({ ...first, wouldRefuse: [] });
        expect(await budgetOf(store, tenant)).toMatchObject({ heldMicroUsd: 100n });
        await store.start({ tenant, callId: "c1" }, "me");
        expect(await store.hold(call("c1", { costMicroUsd: 100n }))).toMatchObject({
          state: "started",
          holdTimeMs: first.holdTimeMs,
        });
        await store.settle(settled("c1", { costMicroUsd: 1n }));
        expect(await store.hold(call("c1", { costMicroUsd: 100n }))).toMatchObject({ state: "ended" });
        expect(await budgetOf(store, tenant)).toMatchObject({ heldMicroUsd: 0n, spentMicroUsd: 1n });
      });

      it("is started by one owner only", async () => {
        expect(await store.start({ tenant, callId: "c1" }, "me")).toBe("not_held");
        await store.hold(call("c1"));
        expect(await store.start({ tenant, callId: "c1" }, "me")).toBe("started");
        expect(await store.start({ tenant, callId: "c1" }, "me")).toBe("started");
        expect(await store.start({ tenant, callId: "c1" }, "other")).toBe("started_by_other");
        await store.settle(settled("c1"));
        expect(await store.start({ tenant, callId: "c1" }, "me")).toBe("ended");
      });

      it("is settled once; the first settling stands", async () => {
        await startedCall(store, call("c1", { costMicroUsd: 100n }));
        await store.settle(settled("c1", { costMicroUsd: 60n }));
        const again = await store.settle(settled("c1", { costMicroUsd: 70n }));
        expect(again).toMatchObject({ state: "stands", record: { costMicroUsd: 60n } });
        expect(await ledgerOf(store, tenant)).toHaveLength(1);
        await checkAccount(store, tenant);
      });

      it("that was never sent leaves nothing", async () => {
        await setMonth("user:ann", { money: 1_000n });
        await store.hold(call("c1"));
        await store.release({ tenant, callId: "c1" }, "me");
        await store.release({ tenant, callId: "c1" }, "me");
        await startedCall(store, call("c2"));
        await store.release({ tenant, callId: "c2" }, "other");
        expect(await store.find({ tenant, callId: "c2" })).toMatchObject({ state: "started" });
        await store.release({ tenant, callId: "c2" }, "me");
        expect(await store.find({ tenant, callId: "c2" })).toMatchObject({ state: "released" });
        expect(await budgetOf(store, tenant)).toMatchObject({ heldMicroUsd: 0n, spentMicroUsd: 0n });
        expect(await ledgerOf(store, tenant)).toEqual([]);
        expect(await store.start({ tenant, callId: "c1" }, "me")).toBe("ended");
      });

      it("can be looked up at each step", async () => {
        const ref = { tenant, callId: "c1" };
        expect(await store.find(ref)).toBeUndefined();
        const { holdTimeMs } = await store.hold(call("c1", { costMicroUsd: 100n })).then(held);
        expect(await store.find(ref)).toMatchObject({ state: "unstarted", holdTimeMs, record: { costMicroUsd: 100n } });
        await store.start(ref, "me");
        expect(await store.find(ref)).toMatchObject({ state: "started", holdTimeMs, record: { agent: "assistant" } });
        await store.settle(settled("c1", { costMicroUsd: 60n }));
        expect(await store.find(ref)).toMatchObject({ state: "settled", holdTimeMs, record: { costMicroUsd: 60n } });
      });

      it("whose hold the store lost is charged all the same, for it was made", async () => {
        const { record } = { record: settled("c1", { costMicroUsd: 5n }) };
        expect(await store.settle(record)).toMatchObject({ state: "settled" });
        expect(await store.settle(record)).toMatchObject({ state: "stands" });
        await checkAccount(store, tenant);
        expect(await ledgerOf(store, tenant)).toHaveLength(1);
      });

      it("of long ago that nobody knows may have been settled, and is not charged again", async () => {
        const long = settled("c1", { costMicroUsd: 5n, holdTime: { seconds: 1_000_000_000n, nanos: 0 } });
        expect(await store.settle(long)).toEqual({ state: "forgotten" });
        expect(await ledgerOf(store, tenant)).toEqual([]);
      });

      it("without a team or a use case has no scope of that kind", async () => {
        for (const scope of ["team:", "use_case:"] as const) {
          await store.setBudget(tenant, { scope, period: "day", limitTokens: 0n, dryRun: false });
        }
        await store.hold(call("c1", { team: "", useCase: "" })).then(held);
      });

      it("of another tenant is another's", async () => {
        await setMonth("user:ann", { money: 100n });
        await startedCall(store, call("c1", { costMicroUsd: 90n }));
        await startedCall(store, call("c1", { tenant: "other", costMicroUsd: 90n }));
        await store.settle(settled("c1", { costMicroUsd: 90n }));
        expect(await ledgerOf(store, "other")).toEqual([]);
        expect(await store.find({ tenant: "other", callId: "c1" })).toMatchObject({ state: "started" });
        expect(await store.budgets("other")).toEqual([]);
      });

      it("keeps names with colons, braces, quotes and emoji apart", async () => {
        const users = ["a:b", "a}b", '"', "{a:acme}", "🦊 u", "a\\b", "*"];
        for (const [index, userId] of users.entries()) {
          await store.setBudget(tenant, {
            scope: `user:${userId}`,
            period: "day",
            limitMicroUsd: 1_000n,
            dryRun: false,
          });
          await startedCall(store, call(`c${index}`, { userId }));
          await store.settle(settled(`c${index}`, { userId, costMicroUsd: BigInt(index + 1) }));
        }
        const spent = (await store.budgets(tenant)).map(({ scope, spentMicroUsd }) => [
          scope?.scope.value,
          spentMicroUsd,
        ]);
        expect(new Map(spent as [string, bigint][])).toEqual(
          new Map(users.map((userId, at) => [userId, BigInt(at + 1)])),
        );
      });
    });

    describe("a price's span", () => {
      it("holds nothing when the hold's time lies outside, and says the time", async () => {
        const untilMs = Date.now() - 60_000;
        const outcome = await store.hold({ ...call("c1"), priceSpan: { fromMs: 0, untilMs } });
        expect(outcome.state).toBe("price_changed");
        expect(await store.find({ tenant, callId: "c1" })).toBeUndefined();
        const nowMs = outcome.state === "price_changed" ? outcome.nowMs : 0;
        expect(nowMs).toBeGreaterThan(untilMs);
        const inside = { fromMs: nowMs - 1, untilMs: nowMs + 60_000 };
        expect((await store.hold({ ...call("c1"), priceSpan: inside })).state).toBe("held");
      });
    });

    describe("a budget", () => {
      it("admits what fits exactly, and refuses one more", async () => {
        await setMonth("user:ann", { money: 100n, tokens: 1_000n });
        await startedCall(store, call("c1", { costMicroUsd: 60n, promptTokens: 100n, completionTokens: 0n }));
        await store.settle(settled("c1", { costMicroUsd: 60n, promptTokens: 100n, completionTokens: 0n }));
        await store.hold(call("c2", { costMicroUsd: 30n, promptTokens: 1n, completionTokens: 0n })).then(held);
        const refusal = await refusalOf(
          store.hold(call("c3", { costMicroUsd: 11n, promptTokens: 1n, completionTokens: 0n })),
        );
        const { endMs } = periodOf("month", Date.now());
        expect(refusal.hits).toEqual([
          {
            scope: "user:ann",
            period: "month",
            unit: "micro_usd",
            limit: 100n,
            spent: 60n,
            held: 30n,
            wanted: 11n,
            resetTimeMs: endMs,
          },
        ]);
        expect(refusal.reason).toBe("BUDGET_EXHAUSTED");
        expect(refusal.facts.retryAfterMs).toBeLessThanOrEqual(1_000);
        expect(refusal.facts.quotas).toEqual([
          {
            subject: "user:ann",
            description: `month budget: limit 100 micro_usd, spent 60, held 30, wanted 11, resets ${new Date(endMs).toISOString()}`,
          },
        ]);
        await store.hold(call("c3", { costMicroUsd: 10n, promptTokens: 1n, completionTokens: 0n })).then(held);
      });

      it("binds in tokens too, and names every budget that was hit", async () => {
        await setMonth("user:ann", { tokens: 50n });
        await setMonth("tenant:acme", { money: 10n, tokens: 40n });
        const refusal = await refusalOf(
          store.hold(call("c1", { costMicroUsd: 20n, promptTokens: 30n, completionTokens: 30n })),
        );
        expect(refusal.hits.map(({ scope, unit }) => `${scope} ${unit}`).toSorted()).toEqual([
          "tenant:acme micro_usd",
          "tenant:acme tokens",
          "user:ann tokens",
        ]);
        expect(refusal.reason).toBe("CALL_EXCEEDS_BUDGET");
        expect(refusal.facts.retryAfterMs).toBeUndefined();
      });

      it("that is spent says to wait until it begins anew", async () => {
        await store.setBudget(tenant, { scope: "user:ann", period: "hour", limitMicroUsd: 100n, dryRun: false });
        await startedCall(store, call("c1", { costMicroUsd: 95n }));
        await store.settle(settled("c1", { costMicroUsd: 95n }));
        const refusal = await refusalOf(store.hold(call("c2", { costMicroUsd: 10n })));
        const untilResetMs = periodOf("hour", Date.now()).endMs - Date.now();
        expect(Math.abs((refusal.facts.retryAfterMs ?? 0) - untilResetMs)).toBeLessThan(5_000);
      });

      it("that refuses holds nothing on the others", async () => {
        await setMonth("tenant:acme", { money: 1_000n });
        await setMonth("user:ann", { money: 5n });
        await refusalOf(store.hold(call("c1", { costMicroUsd: 10n })));
        for (const budget of await store.budgets(tenant))
          expect(budget).toMatchObject({ heldMicroUsd: 0n, heldTokens: 0n });
        expect(await store.find({ tenant, callId: "c1" })).toBeUndefined();
      });

      it("binds calls under way: what is spent without it counts", async () => {
        await startedCall(store, call("c1", { costMicroUsd: 70n }));
        await store.settle(settled("c1", { costMicroUsd: 70n }));
        await store.hold(call("c2", { costMicroUsd: 20n })).then(held);
        await setMonth("user:ann", { money: 100n });
        expect(await budgetOf(store, tenant)).toMatchObject({ spentMicroUsd: 70n, heldMicroUsd: 20n });
        await refusalOf(store.hold(call("c3", { costMicroUsd: 11n })));
      });

      it("of dry run refuses nobody and counts who would have been", async () => {
        await setMonth("user:ann", { money: 15n, dry: true });
        expect(await store.hold(call("c1", { costMicroUsd: 10n }))).toMatchObject({ wouldRefuse: [] });
        const second = await store.hold(call("c2", { costMicroUsd: 10n })).then(held);
        expect(second.wouldRefuse).toMatchObject([{ scope: "user:ann", limit: 15n, held: 10n, wanted: 10n }]);
        expect(await budgetOf(store, tenant)).toMatchObject({ dryRun: true, wouldRefuse: 1n, heldMicroUsd: 20n });
      });

      it("is replaced and removed", async () => {
        const set = await setMonth("user:ann", { money: 10n });
        expect(set).toMatchObject({ period: BudgetPeriod.MONTH, limitMicroUsd: 10n, dryRun: false });
        expect(set.limitTokens).toBeUndefined();
        await setMonth("user:ann", { money: 20n, tokens: 5n });
        expect(await store.budgets(tenant)).toMatchObject([{ limitMicroUsd: 20n, limitTokens: 5n }]);
        const removed = await setMonth("user:ann", {});
        expect(removed.limitMicroUsd).toBeUndefined();
        expect(await store.budgets(tenant)).toEqual([]);
      });

      it("of zero admits nothing", async () => {
        await setMonth("user:ann", { money: 0n });
        await refusalOf(store.hold(call("c1", { costMicroUsd: 1n })));
        await store.hold(call("c2", { costMicroUsd: 0n })).then(held);
      });

      it("for each one gives each the whole limit, and yields to one's own", async () => {
        await setMonth("user:*", { money: 10n });
        await setMonth("user:bob", { money: 30n });
        await store.hold(call("c1", { costMicroUsd: 10n })).then(held);
        await refusalOf(store.hold(call("c2", { costMicroUsd: 1n })));
        await store.hold(call("c3", { userId: "cid", costMicroUsd: 10n })).then(held);
        await store.hold(call("c4", { userId: "bob", costMicroUsd: 30n })).then(held);
      });

      it("is exact where doubles are not", async () => {
        await setMonth("user:ann", { money: HUGE });
        await startedCall(store, call("c1", { costMicroUsd: HUGE - 10_000_000_001n }));
        await store.settle(settled("c1", { costMicroUsd: HUGE - 10_000_000_001n }));
        await refusalOf(store.hold(call("c2", { costMicroUsd: 10_000_000_002n })));
        await store.hold(call("c3", { costMicroUsd: 10_000_000_000n })).then(held);
        const refusal = await refusalOf(store.hold(call("c4", { costMicroUsd: 2n })));
        expect(refusal.hits).toMatchObject([{ spent: HUGE - 10_000_000_001n, held: 10_000_000_000n }]);
        await store.hold(call("c5", { costMicroUsd: 1n })).then(held);
        expect(await budgetOf(store, tenant)).toMatchObject({ spentMicroUsd: HUGE - 10_000_000_001n });
        await checkAccount(store, tenant);
      });

      it("is never crossed by 200 calls at once, and affords as many as it can", async () => {
        await setMonth("tenant:acme", { money: 1_000n });
        const outcomes = await Promise.allSettled(
          Array.from({ length: 200 }, (_, index) =>
            store.hold(call(`c${index}`, { costMicroUsd: 70n, userId: `u${index}` })),
          ),
        );
        const admitted = outcomes.filter((outcome) => outcome.status === "fulfilled");
        expect(admitted).toHaveLength(14);
        for (const outcome of outcomes) {
          if (outcome.status === "rejected") expect(outcome.reason).toBeInstanceOf(BudgetRefusal);
        }
        expect(await budgetOf(store, tenant)).toMatchObject({ heldMicroUsd: 980n });
      });
    });

    describe("budgets of the configuration", () => {
      const configured: readonly ConfiguredBudget[] = [
        { tenant, scope: "user:ann", period: "day", limitMicroUsd: 10n, dryRun: false },
        { tenant, scope: "session:*", period: "month", limitTokens: 100n, dryRun: false },
        { tenant: "*", scope: "tenant:*", period: "day", limitMicroUsd: 1_000n, dryRun: false },
      ];

      it("bind, and are listed with those that were set", async () => {
        store = await subject.open(configured);
        await refusalOf(store.hold(call("c1", { costMicroUsd: 11n })));
        const tokens = await refusalOf(
          store.hold(call("c2", { costMicroUsd: 1n, promptTokens: 101n, completionTokens: 0n })),
        );
        expect(tokens.hits).toMatchObject([{ scope: "session:s1", unit: "tokens", limit: 100n }]);
        const other = await refusalOf(store.hold(call("c3", { tenant: "beta", costMicroUsd: 1_001n })));
        expect(other.hits).toMatchObject([{ scope: "tenant:beta" }]);
        await setMonth("tenant:acme", { money: 5_000n });
        const listed = (await store.budgets(tenant)).map(
          ({ scope, period }) => `${scope?.scope.case} ${scope?.scope.value} ${BudgetPeriod[period]}`,
        );
        expect(listed).toEqual(["tenant * DAY", "tenant acme MONTH", "user ann DAY", "session * MONTH"]);
      });

      it("yield to what was set, and come back when that is removed", async () => {
        store = await subject.open(configured);
        await store.setBudget(tenant, { scope: "user:ann", period: "day", limitMicroUsd: 100n, dryRun: false });
        await store.hold(call("c1", { costMicroUsd: 50n })).then(held);
        const again = await store.setBudget(tenant, { scope: "user:ann", period: "day", dryRun: false });
        expect(again).toMatchObject({ limitMicroUsd: 10n, heldMicroUsd: 50n });
        await refusalOf(store.hold(call("c2", { costMicroUsd: 1n })));
      });
    });

    describe("a preview", () => {
      it("says what the hold will say, and holds nothing", async () => {
        await setMonth("user:ann", { money: 100n, tokens: 1_000n });
        await store.setBudget(tenant, { scope: "session:*", period: "hour", limitTokens: 50n, dryRun: false });
        await startedCall(store, call("c1", { costMicroUsd: 60n, promptTokens: 10n, completionTokens: 5n }));
        const fits = await store.preview(call("c2", { costMicroUsd: 40n, promptTokens: 35n, completionTokens: 0n }));
        expect(fits.refusal).toBeUndefined();
        expect(fits.headroom).toMatchObject([
          { scope: "user", scopeId: "ann", leftMicroUsd: 40n, leftTokens: 985n },
          { scope: "session", scopeId: "s1", leftTokens: 35n },
        ]);
        expect(fits.headroom[1]?.leftMicroUsd).toBeUndefined();
        const tooMuch = call("c3", { costMicroUsd: 41n, promptTokens: 1n, completionTokens: 0n });
        const { refusal } = await store.preview(tooMuch);
        expect(refusal?.hits).toEqual((await refusalOf(store.hold(tooMuch))).hits);
        expect((await store.budgets(tenant))[0]).toMatchObject({ heldMicroUsd: 60n });
        expect(await store.find({ tenant, callId: "c2" })).toBeUndefined();
      });
    });

    describe("a lost call", () => {
      it("is charged in full once its time is over, and found in any account", async () => {
        await setMonth("user:ann", { money: 1_000n });
        await startedCall(store, call("c1", { costMicroUsd: 100n, callMs: 1 }));
        await startedCall(store, call("c2", { costMicroUsd: 10n, callMs: 60_000 }));
        await startedCall(store, call("c3", { tenant: "other", costMicroUsd: 7n, callMs: 1 }));
        // Each has a time of its own.
        const lost: UsageRecord[] = [];
        await eventually(async () => {
          lost.push(...(await store.expired()));
          expect(lost.length).toBeGreaterThanOrEqual(2);
        });
        expect(lost.map(({ recordId }) => recordId).toSorted()).toEqual(["c1", "c3"]);
        expect(await ledgerOf(store, tenant)).toMatchObject([
          { recordId: "c1", costMicroUsd: 100n, outcome: CallOutcome.LOST, usageSource: UsageSource.HOLD_MAXIMUM },
        ]);
        expect(await budgetOf(store, tenant)).toMatchObject({ spentMicroUsd: 100n, heldMicroUsd: 10n });
        expect(await store.expired()).toEqual([]);
        expect(await store.find({ tenant, callId: "c1" })).toMatchObject({ state: "charged" });
        await checkAccount(store, tenant);
      });

      it("is charged what is known of it, and not before that can be told", async () => {
        await setMonth("user:ann", { money: 1_000n });
        await startedCall(store, call("c1", { costMicroUsd: 100n, callMs: 1 }));
        await startedCall(store, call("c2", { costMicroUsd: 100n, callMs: 1 }));
        await eventually(async () => {
          const told = store.expired(async () => {
            throw new Failure("STORE_UNAVAILABLE");
          });
          await expect(told).rejects.toMatchObject({ reason: "STORE_UNAVAILABLE" });
        });
        expect(await ledgerOf(store, tenant)).toEqual([]);
        const truths = new Map([["c1", settled("c1", { costMicroUsd: 7n })]]);
        await eventually(async () => {
          await store.expired(async ({ recordId }) => truths.get(recordId));
          expect(await ledgerOf(store, tenant)).toHaveLength(2);
        });
        expect(await store.find({ tenant, callId: "c1" })).toMatchObject({ state: "settled" });
        expect(await store.find({ tenant, callId: "c2" })).toMatchObject({ state: "charged" });
        expect(await budgetOf(store, tenant)).toMatchObject({ spentMicroUsd: 107n, heldMicroUsd: 0n });
        await checkAccount(store, tenant);
      });

      it("is charged at once when somebody knows", async () => {
        expect(await store.lose({ tenant, callId: "c1" })).toBeUndefined();
        await store.hold(call("c1", { costMicroUsd: 100n }));
        expect(await store.lose({ tenant, callId: "c1" })).toBeUndefined();
        await store.start({ tenant, callId: "c1" }, "me");
        expect(await store.lose({ tenant, callId: "c1" })).toMatchObject({
          costMicroUsd: 100n,
          outcome: CallOutcome.LOST,
        });
        expect(await store.lose({ tenant, callId: "c1" })).toBeUndefined();
        expect(await ledgerOf(store, tenant)).toHaveLength(1);
      });

      it("that is settled by what was charged stands as it is", async () => {
        await startedCall(store, call("c1", { costMicroUsd: 100n }));
        const charged = await store.lose({ tenant, callId: "c1" });
        if (charged === undefined) throw new Error("it was started");
        // A takeover has written that row into its turn's log, and settles what stands there.
        expect(await store.settle(charged)).toEqual({ state: "stands", record: charged });
        expect(await store.correct(charged)).toEqual({ state: "stands", record: charged });
        expect(await ledgerOf(store, tenant)).toHaveLength(1);
      });

      it("that its owner settles after all is corrected, once", async () => {
        await setMonth("user:ann", { money: 1_000n });
        await startedCall(store, call("c1", { costMicroUsd: 100n, promptTokens: 40n, completionTokens: 60n }));
        await store.lose({ tenant, callId: "c1" });
        const truth = settled("c1", { costMicroUsd: 30n, promptTokens: 40n, completionTokens: 5n });
        expect(await store.settle(truth)).toMatchObject({ state: "corrected", record: { costMicroUsd: 30n } });
        expect(await store.settle(truth)).toMatchObject({
          state: "stands",
          record: { costMicroUsd: 30n, promptTokens: 40n },
        });
        expect(await ledgerOf(store, tenant)).toMatchObject([
          { recordId: "c1", costMicroUsd: 100n, completionTokens: 60n },
          {
            recordId: "c1/correction-1",
            correctsRecordId: "c1",
            costMicroUsd: -70n,
            promptTokens: 0n,
            completionTokens: -55n,
            usageSource: UsageSource.PROVIDER,
            outcome: CallOutcome.OK,
            userId: "ann",
          },
        ]);
        expect(await budgetOf(store, tenant)).toMatchObject({ spentMicroUsd: 30n, spentTokens: 45n, heldMicroUsd: 0n });
        await checkAccount(store, tenant);
      });
    });

    describe("a correction", () => {
      it("makes the charge what it should be, with rows of its own and counters that follow", async () => {
        await startedCall(store, call("c1", { costMicroUsd: 100n }));
        await store.settle(settled("c1", { costMicroUsd: 50n }));
        expect(await store.correct(settled("c1", { costMicroUsd: 80n }))).toMatchObject({ state: "corrected" });
        expect(await store.correct(settled("c1", { costMicroUsd: 80n }))).toMatchObject({ state: "stands" });
        expect(await store.correct(settled("c1", { costMicroUsd: 20n }))).toMatchObject({ state: "corrected" });
        const rows = await ledgerOf(store, tenant);
        expect(rows.map(({ costMicroUsd }) => costMicroUsd)).toEqual([50n, 30n, -60n]);
        expect(await store.find({ tenant, callId: "c1" })).toMatchObject({ record: { costMicroUsd: 20n } });
        await checkAccount(store, tenant);
      });

      it("of a call that nobody knows changes nothing", async () => {
        expect(await store.correct(settled("c1"))).toEqual({ state: "forgotten" });
        await store.hold(call("c2"));
        expect(await store.correct(settled("c2"))).toEqual({ state: "forgotten" });
        expect(await ledgerOf(store, tenant)).toEqual([]);
      });

      it("that many make at once is made once", async () => {
        await startedCall(store, call("c1"));
        await store.lose({ tenant, callId: "c1" });
        const truth = settled("c1", { costMicroUsd: 3n });
        const outcomes = await Promise.all(Array.from({ length: 10 }, () => store.settle(truth)));
        expect(outcomes.filter(({ state }) => state === "corrected")).toHaveLength(1);
        expect(await ledgerOf(store, tenant)).toHaveLength(2);
        await checkAccount(store, tenant);
      });

      it("of rows, however old, is made once by its id, in steps of any number", async () => {
        const ids = Array.from({ length: 120 }, (_, index) => `c${index}`);
        for (const id of ids) await store.settle(settled(id, { costMicroUsd: 5n }));
        const rows = await ledgerOf(store, tenant);
        const corrections = rows.map((row) => ({
          difference: create(UsageRecordSchema, {
            ...row,
            recordId: `${row.recordId}/repriced-x`,
            correctsRecordId: row.recordId,
            promptTokens: 0n,
            completionTokens: 0n,
            costMicroUsd: 2n,
          }),
        }));
        expect(await store.amend(tenant, corrections)).toBe(120);
        expect(await store.amend(tenant, corrections)).toBe(0);
        expect(await ledgerOf(store, tenant)).toHaveLength(240);
        expect(await store.find({ tenant, callId: "c7" })).toMatchObject({ record: { costMicroUsd: 7n } });
        expect(await store.correct(settled("c7", { costMicroUsd: 6n }))).toMatchObject({ state: "corrected" });
        await checkAccount(store, tenant);
      });
    });

    describe("the ledger", () => {
      it("is read by the time of the hold, page by page, in the order of the settling", async () => {
        const startMs = Date.now() - 1_000;
        for (let index = 0; index < 23; index += 1) {
          await startedCall(store, call(`c${index}`));
          await store.settle(settled(`c${index}`));
        }
        const endMs = Date.now() + 1_000;
        const ids: string[] = [];
        let after: string | undefined;
        let pages = 0;
        do {
          const page = await store.ledger({
            tenant,
            startMs,
            endMs,
            limit: 5,
            ...(after === undefined ? {} : { after }),
          });
          ids.push(...page.rows.map(({ recordId }) => recordId));
          after = page.next;
          pages += 1;
        } while (after !== undefined);
        expect(ids).toEqual(Array.from({ length: 23 }, (_, index) => `c${index}`));
        expect(pages).toBe(5);
        const nothing = await store.ledger({ tenant, startMs: endMs, endMs: endMs + 1_000, limit: 5 });
        expect(nothing.rows).toEqual([]);
        expect((await store.ledger({ tenant, startMs: 0, endMs: startMs, limit: 100 })).rows).toEqual([]);
      });

      it("keeps all that a record says", async () => {
        const record = settled("c1", {
          cachedPromptTokens: 3n,
          reasoningTokens: 2n,
          priceVersion: "v1",
          turnId: "t1",
          version: "0.3.0",
          outcome: CallOutcome.CANCELLED,
          usageSource: UsageSource.TOKENIZER_ESTIMATE,
        });
        await startedCall(store, call("c1"));
        const outcome = await store.settle(record);
        const [row] = await ledgerOf(store, tenant);
        const expected = create(UsageRecordSchema, { ...record, ...(row?.holdTime && { holdTime: row.holdTime }) });
        expect(row !== undefined && equals(UsageRecordSchema, row, expected)).toBe(true);
        expect(outcome).toMatchObject({ record: row });
      });
    });

    it("refuses with a failure that the error table knows", async () => {
      await setMonth("user:ann", { money: 1n });
      await expectFailure(store.hold(call("c1", { costMicroUsd: 2n })), "CALL_EXCEEDS_BUDGET");
    });
  });
}
