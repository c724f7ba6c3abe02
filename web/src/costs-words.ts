import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { type Budget, BudgetPeriod } from "../../gen/parley/usage/v1/budget_pb.js";
import { CallOutcome } from "../../gen/parley/usage/v1/usage_record_pb.js";
import type { CostDimension, CostRange } from "./costs-address.ts";

// What the Costs page calls things.

export const dimensionNames: Readonly<Record<CostDimension, string>> = {
  team: "Team",
  user: "User",
  use_case: "Use case",
  agent: "Agent",
  model: "Model",
  version: "Version",
};

export const rangeNames: Readonly<Record<CostRange, string>> = {
  day: "Last 24 hours",
  week: "Last 7 days",
  month: "Last 30 days",
  "this-month": "This month",
  "last-month": "Last month",
};

/** A group's name; what has none is a group too. */
export function groupName(by: CostDimension, value: string): string {
  return value === "" ? `No ${dimensionNames[by].toLowerCase()}` : value;
}

/** `12,345`. */
export function countText(count: bigint): string {
  return count.toLocaleString("en");
}

/** `1 call`, `2 calls`. */
export function callsText(calls: bigint): string {
  return `${countText(calls)} ${calls === 1n ? "call" : "calls"}`;
}

/** Ends of turn ids are what differs; they begin with their session. */
export function shortTurnId(turnId: string): string {
  const end = turnId.split(".").at(-1) ?? turnId;
  return `…${end.slice(-8)}`;
}

export function outcomeText(outcome: CallOutcome): string {
  switch (outcome) {
    case CallOutcome.OK:
      return "answered";
    case CallOutcome.FAILED:
      return "failed";
    case CallOutcome.CANCELLED:
      return "cancelled";
    case CallOutcome.LOST:
      return "lost";
    default:
      return "not sent";
  }
}

/** Where a row's counts come from. */
export function sourceText(source: UsageSource): string {
  switch (source) {
    case UsageSource.PROVIDER:
      return "counted by the provider";
    case UsageSource.TOKENIZER_ESTIMATE:
      return "estimated";
    case UsageSource.HOLD_MAXIMUM:
      return "charged in full";
    default:
      return "";
  }
}

/** `User ann, per day`. */
export function budgetName({ scope, period }: Budget): string {
  const { case: kind, value = "" } = scope?.scope ?? {};
  const names = { tenant: "Tenant", team: "Team", user: "User", useCase: "Use case", session: "Session" };
  const what = kind === undefined ? "" : names[kind];
  const who = value === "*" ? `Each ${what.toLowerCase()} without a budget of its own` : `${what} ${value}`;
  return `${who}, ${periodText(period)}`;
}

/** Whether a budget stands for each one that has none of its own: then nobody's spending is in it. */
export function isForEach({ scope }: Budget): boolean {
  return scope?.scope.value === "*";
}

function periodText(period: BudgetPeriod): string {
  switch (period) {
    case BudgetPeriod.HOUR:
      return "per hour";
    case BudgetPeriod.DAY:
      return "per day";
    default:
      return "per month";
  }
}
