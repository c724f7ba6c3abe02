import type { UsageRecord } from "../gen/parley/usage/v1/usage_record_pb.js";
import { LEDGER_MS } from "../src/accounts/account-store.ts";
import type { PeriodName } from "../src/accounts/budget-periods.ts";
import type { Suspicion } from "./anomaly-rules.ts";

/** What a rollup sums. Each is the sum over its rows, corrections included. */
export interface RollupAmounts {
  /** Model calls; corrections are none. */
  readonly calls: bigint;
  readonly promptTokens: bigint;
  readonly cachedPromptTokens: bigint;
  readonly completionTokens: bigint;
  readonly reasoningTokens: bigint;
  readonly costMicroUsd: bigint;
  /** Prompt and completion tokens of calls that no price was known for, and is not known since. */
  readonly unpricedTokens: bigint;
}

/** By what rollups are kept apart. */
export interface RollupGroup {
  readonly team: string;
  readonly userId: string;
  readonly useCase: string;
  readonly agent: string;
  readonly model: string;
  readonly version: string;
}

export interface Rollup extends RollupAmounts {
  readonly group: RollupGroup;
}

/** A row of the ledger with its place in it. */
export interface LedgerEntry {
  readonly id: string;
  readonly row: UsageRecord;
}

export interface Applied {
  /** Those that were not done before. */
  readonly entries: readonly LedgerEntry[];
  /** Whether something in them, or in them and those before, is above a floor: `suspicions` has it. */
  readonly suspicious: boolean;
}

/** A suspicion that turned out to be one, and when. */
export interface Anomaly extends Suspicion {
  readonly openTimeMs: number;
}

/** What is still to be done of an account's ledger. */
export interface LedgerStanding {
  /** Rows that are not applied. */
  readonly pending: number;
  /** How long ago the oldest of them was appended, in milliseconds, by the store's clock; 0: there is none. */
  readonly lagMs: number;
}

/**
 * Sums of the ledger by hour, day and month, kept in the account's own store. A call belongs to the periods of its hold.
 *
 * Any number of sidecars share the work: `take` gives each row to one of them, and once more to another when the first is
 * not heard of. `apply` counts each row once, however often it was given out, by whomever, and in whatever order. Any
 * operation may reject with STORE_UNAVAILABLE; then it may or may not have happened, and may be repeated with the same
 * arguments.
 */
export interface Rollups {
  /** Accounts that may have a ledger. */
  tenants(): Promise<string[]>;
  /**
   * Rows to be applied, the oldest first: those that another sidecar took and did not apply, then new ones. At most `limit`.
   * Rows that a newer release wrote stay where they are, for a sidecar that can read them.
   */
  take(tenant: string, limit: number): Promise<LedgerEntry[]>;
  /** Adds the rows to the rollups and to the histories of their users and sessions, and marks them as done, in one step. */
  apply(tenant: string, entries: readonly LedgerEntry[]): Promise<Applied>;
  standing(tenant: string): Promise<LedgerStanding>;
  /** The rollups of one period, in no order. */
  read(tenant: string, period: PeriodName, startMs: number): AsyncIterable<Rollup>;
  /** Cost of the running month, of all rollups together. */
  costThisMonth(tenant: string): Promise<bigint>;
  /** What is kept of the subject of a suspicion to hold it against: earlier values of the same kind. */
  history(tenant: string, suspicion: Suspicion): Promise<number[]>;
  /** What is above its floor and was not judged since. */
  suspicions(tenant: string): Promise<Suspicion[]>;
  /**
   * Forgets a suspicion; where it is an anomaly, opens that for a while, in one step. False: nothing was opened, as it is none, or
   * the same is open already, whoever opened it, or there is more to the suspicion by now.
   */
  judge(tenant: string, suspicion: Suspicion, isAnomaly: boolean): Promise<boolean>;
  /** Anomalies that are open. */
  anomalies(tenant: string): Promise<Anomaly[]>;
  /** Leaves, for good: what was taken and not applied goes to the others. */
  leave(): Promise<void>;
}

/** Anomalies of one account that are open at most. */
export const MOST_ANOMALIES = 1_000;

/** Name of a suspicion: a later one of the same name takes its place. */
export function suspicionName({ kind, subject, at }: Suspicion): string {
  return `${kind} ${subject.scope} ${subject.id} ${at}`;
}

/** Name of an anomaly: the same is not opened twice. */
export function anomalyName({ kind, subject }: Suspicion): string {
  return `${kind} ${subject.scope}:${subject.id}`;
}

const DAY_MS = 24 * 3_600_000;

/**
 * Rollups stay this long after their period's end, in milliseconds: hours as long as the ledger, so that either can answer
 * for the other; days for a year's comparison; months for five years of books.
 */
export const ROLLUP_RETENTION_MS: Readonly<Record<PeriodName, number>> = {
  hour: LEDGER_MS,
  day: 400 * DAY_MS,
  month: 5 * 366 * DAY_MS,
};

/** The amounts, in the order in which they are stored. */
export const ROLLUP_AMOUNTS = [
  "calls",
  "promptTokens",
  "cachedPromptTokens",
  "completionTokens",
  "reasoningTokens",
  "costMicroUsd",
  "unpricedTokens",
] as const satisfies readonly (keyof RollupAmounts)[];

/** What a row adds, apart from unpriced tokens: those depend on the other rows of its call. */
export function amountsOfRow(row: UsageRecord): Omit<RollupAmounts, "unpricedTokens"> {
  const { promptTokens, cachedPromptTokens, completionTokens, reasoningTokens, costMicroUsd } = row;
  const calls = row.correctsRecordId === "" ? 1n : 0n;
  return { calls, promptTokens, cachedPromptTokens, completionTokens, reasoningTokens, costMicroUsd };
}

/** The call that a row is of. */
export function callIdOf({ recordId, correctsRecordId }: UsageRecord): string {
  return correctsRecordId || recordId;
}

/** A group as the name of a field: a JSON array. */
export function encodeGroup({ team, userId, useCase, agent, model, version }: UsageRecord): string {
  return JSON.stringify([team, userId, useCase, agent, model, version]);
}

export function decodeGroup(field: string): RollupGroup {
  const [team = "", userId = "", useCase = "", agent = "", model = "", version = ""] = JSON.parse(field) as string[];
  return { team, userId, useCase, agent, model, version };
}
