import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Headroom, HeadroomSchema } from "../../gen/parley/chat/v1/headroom_pb.js";
import { type Budget, BudgetPeriod, BudgetSchema } from "../../gen/parley/usage/v1/budget_pb.js";
import { Failure } from "../failure.ts";
import { isReadable } from "../store/stored-formats.ts";
import { BUDGET_PERIODS, type PeriodName } from "./budget-periods.ts";
import { type BudgetLimits, parseBudgetName } from "./budgets.ts";
import { budgetScope, parseScopeName, SCOPE_KINDS, type ScopeName } from "./call-scopes.ts";
import type { Amounts } from "./usage-amounts.ts";

/** What is used of a budget in its running period. */
export interface BudgetUse {
  readonly spent: Amounts;
  readonly held: Amounts;
  readonly wouldRefuse: bigint;
  readonly resetTimeMs: number;
}

/** A budget as the contract has it. */
export function budgetView(name: string, limits: BudgetLimits, use: BudgetUse): Budget {
  const { period, scope } = parseBudgetName(name);
  const { limitMicroUsd, limitTokens, dryRun } = limits;
  return create(BudgetSchema, {
    scope: budgetScope(scope),
    period: BUDGET_PERIODS.find((known) => known.name === period)?.period ?? BudgetPeriod.UNSPECIFIED,
    ...(limitMicroUsd === undefined ? {} : { limitMicroUsd }),
    ...(limitTokens === undefined ? {} : { limitTokens }),
    dryRun,
    spentMicroUsd: use.spent.microUsd,
    spentTokens: use.spent.tokens,
    heldMicroUsd: use.held.microUsd,
    heldTokens: use.held.tokens,
    wouldRefuse: use.wouldRefuse,
    resetTime: timestampFromMs(use.resetTimeMs),
  });
}

/** By scope, from the widest kind to the narrowest, then by period, the shortest first. */
export function compareBudgetNames(a: string, b: string): number {
  const [left, right] = [parseBudgetName(a), parseBudgetName(b)];
  const kind = (scope: ScopeName): number => SCOPE_KINDS.indexOf(parseScopeName(scope).kind);
  const length = (period: PeriodName): number => BUDGET_PERIODS.findIndex(({ name }) => name === period);
  return (
    kind(left.scope) - kind(right.scope) ||
    (left.scope < right.scope ? -1 : left.scope > right.scope ? 1 : 0) ||
    length(left.period) - length(right.period)
  );
}

/** What is left of a budget; nothing less than nothing, though corrections may have crossed the limit. */
export function headroomView(
  scope: ScopeName,
  { limitMicroUsd, limitTokens }: Omit<BudgetLimits, "dryRun">,
  { spent, held, resetTimeMs }: Omit<BudgetUse, "wouldRefuse">,
): Headroom {
  const { kind, id } = parseScopeName(scope);
  const left = (limit: bigint, used: bigint): bigint => (used < limit ? limit - used : 0n);
  return create(HeadroomSchema, {
    scope: kind,
    scopeId: id,
    ...(limitMicroUsd === undefined ? {} : { leftMicroUsd: left(limitMicroUsd, spent.microUsd + held.microUsd) }),
    ...(limitTokens === undefined ? {} : { leftTokens: left(limitTokens, spent.tokens + held.tokens) }),
    resetTime: timestampFromMs(resetTimeMs),
  });
}

/** Version of a stored budget that this release writes. */
const BUDGET_FORMAT = "1";

/** A budget as it is stored: `<schema version> <micro USD or -> <tokens or -> <1: dry run, or 0>`. */
export function encodeLimits({ limitMicroUsd, limitTokens, dryRun }: BudgetLimits): string {
  return `${BUDGET_FORMAT} ${limitMicroUsd ?? "-"} ${limitTokens ?? "-"} ${dryRun ? 1 : 0}`;
}

/** The next release's may have more at the end. STORED_FORMAT_UNKNOWN: a still newer one wrote it. */
export function decodeLimits(stored: string): BudgetLimits {
  const [, version, microUsd, tokens, dryRun] = /^(\d+) (-|\d+) (-|\d+) ([01])(?: |$)/.exec(stored) ?? [];
  if (!isReadable(Number(version)) || microUsd === undefined || tokens === undefined)
    throw new Failure("STORED_FORMAT_UNKNOWN");
  return {
    ...(microUsd === "-" ? {} : { limitMicroUsd: BigInt(microUsd) }),
    ...(tokens === "-" ? {} : { limitTokens: BigInt(tokens) }),
    dryRun: dryRun === "1",
  };
}
