import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { expect } from "vitest";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import type { Budget } from "../../gen/parley/usage/v1/budget_pb.js";
import { CallOutcome, type UsageRecord, UsageRecordSchema } from "../../gen/parley/usage/v1/usage_record_pb.js";
import type { AccountStore, CallToHold, HoldOutcome } from "../../src/accounts/account-store.ts";
import { BudgetRefusal } from "../../src/accounts/budget-refusal.ts";
import { type ScopeName, scopesOf } from "../../src/accounts/call-scopes.ts";
import { ledgerOf } from "../support/ledger.ts";

type RecordInit = MessageInitShape<typeof UsageRecordSchema>;

const DEFAULTS = {
  tenant: "acme",
  team: "red",
  userId: "ann",
  useCase: "help",
  sessionId: "s1",
  agent: "assistant",
  model: "gpt-4",
  promptTokens: 1n,
  completionTokens: 1n,
  costMicroUsd: 10n,
} as const satisfies RecordInit;

/** A call to hold, and how it may be lost. */
export function call(
  recordId: string,
  { callMs = 60_000, ...init }: RecordInit & { callMs?: number } = {},
): CallToHold {
  return { maximum: create(UsageRecordSchema, { ...DEFAULTS, ...init, recordId }), callMs };
}

/** What a provider said of a call. */
export function settled(recordId: string, init: RecordInit = {}): UsageRecord {
  return create(UsageRecordSchema, {
    ...DEFAULTS,
    usageSource: UsageSource.PROVIDER,
    outcome: CallOutcome.OK,
    ...init,
    recordId,
  });
}

export function held(outcome: HoldOutcome): Extract<HoldOutcome, { state: "held" }> {
  expect(outcome.state).toBe("held");
  if (outcome.state !== "held") throw new Error("not held");
  return outcome;
}

export async function startedCall(store: AccountStore, toHold: CallToHold, owner = "me"): Promise<void> {
  held(await store.hold(toHold));
  const { tenant, recordId: callId } = toHold.maximum;
  expect(await store.start({ tenant, callId }, owner)).toBe("started");
}

export async function refusalOf(hold: Promise<unknown>): Promise<BudgetRefusal> {
  const refusal = await hold.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (!(refusal instanceof BudgetRefusal)) throw new Error("it was not refused", { cause: refusal });
  return refusal;
}

/** The account's one budget. */
export async function budgetOf(store: AccountStore, tenant: string): Promise<Budget> {
  const [budget, ...rest] = await store.budgets(tenant);
  expect(rest).toEqual([]);
  if (budget === undefined) throw new Error("there is no budget");
  return budget;
}

/**
 * Checks what must always be so: the ledger's rows of this month add up to the counters of each scope. Leaves budgets
 * behind that nobody can reach.
 *
 * @param held What may still be held on the tenant, in micro USD; default: not looked at.
 */
export async function checkAccount(
  store: AccountStore,
  tenant: string,
  { held: heldMicroUsd }: { held?: bigint } = {},
): Promise<void> {
  const sums = new Map<ScopeName, { cost: bigint; tokens: bigint }>();
  for (const row of await ledgerOf(store, tenant)) {
    for (const scope of scopesOf(row)) {
      const { cost, tokens } = sums.get(scope) ?? { cost: 0n, tokens: 0n };
      sums.set(scope, {
        cost: cost + row.costMicroUsd,
        tokens: tokens + row.promptTokens + row.completionTokens,
      });
    }
  }
  for (const [scope, { cost, tokens }] of sums) {
    const limitMicroUsd = 2n ** 63n - 1n;
    const counters = await store.setBudget(tenant, { scope, period: "month", limitMicroUsd, dryRun: true });
    expect({ scope, cost: counters.spentMicroUsd, tokens: counters.spentTokens }).toEqual({ scope, cost, tokens });
    if (heldMicroUsd !== undefined && scope === `tenant:${tenant}`) {
      expect(counters.heldMicroUsd).toBe(heldMicroUsd);
      if (heldMicroUsd === 0n) expect(counters.heldTokens).toBe(0n);
    }
  }
}
