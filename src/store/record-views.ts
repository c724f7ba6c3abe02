import { create } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Session, SessionSchema } from "../../gen/parley/chat/v1/session_pb.js";
import { type TokenUsage, TokenUsageSchema } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { FinishReason, type Turn, TurnSchema, TurnState } from "../../gen/parley/chat/v1/turn_pb.js";
import type { SessionRecord } from "../../gen/parley/storage/v1/session_record_pb.js";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import type { TurnRecord } from "../../gen/parley/storage/v1/turn_record_pb.js";
import { Failure } from "../failure.ts";
import { NO_USAGE, type SessionRef, type TurnRef, type UsageTotals } from "../turns/ports.ts";
import { sequenceOf } from "../turns/turn-log.ts";

/** A session as callers see it. */
export function sessionView(
  ref: SessionRef,
  {
    record,
    messageCount,
    usage,
    updateTimeMs,
    expireTimeMs,
  }: {
    record: SessionRecord;
    messageCount: number;
    usage: UsageTotals;
    updateTimeMs: number;
    expireTimeMs: number;
  },
): Session {
  return create(SessionSchema, {
    sessionId: ref.sessionId,
    userId: record.userId,
    messageCount: BigInt(messageCount),
    tokenUsage: tokenUsage(usage),
    costMicroUsd: usage.costMicroUsd,
    updateTime: timestampFromMs(updateTimeMs),
    expireTime: timestampFromMs(expireTimeMs),
    version: record.version,
    ...(record.createTime === undefined ? {} : { createTime: record.createTime }),
    ...(record.metadata === undefined ? {} : { metadata: structuredClone(record.metadata) }),
  });
}

/** A turn as callers see it. */
export function turnView(
  ref: TurnRef,
  {
    record,
    finishReason,
    usage,
    lastSequence,
  }: {
    record: TurnRecord;
    finishReason: FinishReason;
    usage: UsageTotals;
    lastSequence: bigint;
  },
): Turn {
  return create(TurnSchema, {
    turnId: ref.turnId,
    sessionId: ref.sessionId,
    state: finishReason === FinishReason.UNSPECIFIED ? TurnState.RUNNING : TurnState.FINISHED,
    finishReason,
    tokenUsage: tokenUsage(usage),
    costMicroUsd: usage.costMicroUsd,
    lastSequence,
    ...(record.createTime === undefined ? {} : { createTime: record.createTime }),
  });
}

/** Usage that log entries record. */
export function usageOf(entries: readonly TurnLogEntry[]): UsageTotals {
  return entries.reduce((sum, entry) => {
    const event = entry.event?.event;
    if (event?.case !== "usageRecorded") return sum;
    return addUsage(sum, {
      promptTokens: event.value.tokenUsage?.promptTokens ?? 0,
      completionTokens: event.value.tokenUsage?.completionTokens ?? 0,
      costMicroUsd: event.value.costMicroUsd,
    });
  }, NO_USAGE);
}

export function addUsage(a: UsageTotals, b: UsageTotals): UsageTotals {
  return {
    promptTokens: a.promptTokens + b.promptTokens,
    completionTokens: a.completionTokens + b.completionTokens,
    costMicroUsd: a.costMicroUsd + b.costMicroUsd,
  };
}

/** The number of the first of some entries that follow each other; INTERNAL: they don't, or there are none. */
export function firstSequenceOf(entries: readonly TurnLogEntry[]): bigint {
  const [first] = entries;
  if (first === undefined) throw new Failure("INTERNAL", {}, { cause: new Error("no log entries to append") });
  const start = sequenceOf(first);
  if (start < 1n || entries.some((entry, index) => sequenceOf(entry) !== start + BigInt(index))) throw gapFailure();
  return start;
}

/** Entries that do not go on where their log ends: a fault of the writer. */
export function gapFailure(): Failure {
  return new Failure("INTERNAL", {}, { cause: new Error("log entries do not follow each other") });
}

/** Some of what was asked for is trimmed away. */
export function trimmedFailure({ oldest, newest }: { oldest: bigint; newest: bigint }): Failure {
  return new Failure("TURN_LOG_TRIMMED", {
    metadata: { oldest_sequence: String(oldest), newest_sequence: String(newest) },
  });
}

/** Milliseconds since the epoch. */
export function timestampMs(timestamp: Timestamp | undefined): number {
  return timestamp === undefined ? 0 : Number(timestamp.seconds) * 1_000 + Math.floor(timestamp.nanos / 1e6);
}

/** The counts fit int32 on the wire; a session that outgrows it stays at the largest. */
function tokenUsage({ promptTokens, completionTokens }: UsageTotals): TokenUsage {
  return create(TokenUsageSchema, {
    promptTokens: toInt32(promptTokens),
    completionTokens: toInt32(completionTokens),
    totalTokens: toInt32(promptTokens + completionTokens),
  });
}

function toInt32(count: number): number {
  return Math.min(count, 0x7fff_ffff);
}
