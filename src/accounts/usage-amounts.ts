import { create } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromMs, timestampMs as toMs } from "@bufbuild/protobuf/wkt";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { CallOutcome, type UsageRecord, UsageRecordSchema } from "../../gen/parley/usage/v1/usage_record_pb.js";

/** What a call counts for in budgets. */
export interface Amounts {
  readonly microUsd: bigint;
  /** Prompt and completion. */
  readonly tokens: bigint;
}

export const NOTHING: Amounts = Object.freeze({ microUsd: 0n, tokens: 0n });

export function amountsOf(record: UsageRecord): Amounts {
  return { microUsd: record.costMicroUsd, tokens: record.promptTokens + record.completionTokens };
}

export function minus(a: Amounts, b: Amounts): Amounts {
  return { microUsd: a.microUsd - b.microUsd, tokens: a.tokens - b.tokens };
}

export function plus(a: Amounts, b: Amounts): Amounts {
  return { microUsd: a.microUsd + b.microUsd, tokens: a.tokens + b.tokens };
}

const COUNTS = [
  "promptTokens",
  "cachedPromptTokens",
  "completionTokens",
  "reasoningTokens",
  "costMicroUsd",
] as const satisfies readonly (keyof UsageRecord)[];

/** What must be appended so that `charged` becomes `truth`: the differences. */
export function differenceRow(charged: UsageRecord, truth: UsageRecord, recordId: string): UsageRecord {
  const row = create(UsageRecordSchema, { ...truth, recordId, correctsRecordId: charged.recordId });
  for (const count of COUNTS) row[count] = truth[count] - charged[count];
  return row;
}

/** A row with its corrections: what is charged for the call in the end. */
export function chargedBy([row, ...corrections]: readonly [UsageRecord, ...UsageRecord[]]): UsageRecord {
  const last = corrections.at(-1) ?? row;
  const charged = create(UsageRecordSchema, { ...last, recordId: row.recordId, correctsRecordId: "" });
  for (const count of COUNTS) charged[count] = [row, ...corrections].reduce((sum, part) => sum + part[count], 0n);
  return charged;
}

/** Whether two records say the same of a call. */
export function sameCharge(a: UsageRecord, b: UsageRecord): boolean {
  return (
    COUNTS.every((count) => a[count] === b[count]) &&
    a.priceVersion === b.priceVersion &&
    a.usageSource === b.usageSource &&
    a.outcome === b.outcome
  );
}

/** The row of a call whose owner is lost: the whole hold. */
export function lostRow(maximum: UsageRecord, holdTimeMs: number): UsageRecord {
  return heldAt(
    create(UsageRecordSchema, {
      ...maximum,
      usageSource: UsageSource.HOLD_MAXIMUM,
      outcome: CallOutcome.LOST,
      correctsRecordId: "",
    }),
    holdTimeMs,
  );
}

/** The record with its hold's time. */
export function heldAt(record: UsageRecord, holdTimeMs: number): UsageRecord {
  return create(UsageRecordSchema, { ...record, holdTime: timestampFromMs(holdTimeMs) });
}

/** When a record's call was held for, in milliseconds since the epoch; 0: it does not say. */
export function holdTimeMsOf({ holdTime }: UsageRecord): number {
  return timestampMs(holdTime);
}

function timestampMs(timestamp: Timestamp | undefined): number {
  return timestamp === undefined ? 0 : toMs(timestamp);
}
