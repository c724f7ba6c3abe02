import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import { Failure, type FailureReason } from "../failure.ts";

/**
 * How the RPC of every reader ends that has read a turn's last entry: undefined for an OK, else the failure that the log
 * says, so that a replay ends as the first reading did.
 */
export function failureOfLastEntry(entry: TurnLogEntry): Failure | undefined {
  const { failure } = entry;
  if (failure !== undefined) {
    const { reason, retryAfterMs, quotas } = failure;
    return new Failure(reason as FailureReason, {
      ...(retryAfterMs > 0n ? { retryAfterMs: Number(retryAfterMs) } : {}),
      ...(quotas.length > 0 ? { quotas } : {}),
    });
  }
  const event = entry.event?.event;
  if (event?.case !== "turnCompleted") return undefined;
  switch (event.value.finishReason) {
    case FinishReason.CANCELLED:
      return new Failure("TURN_CANCELLED");
    case FinishReason.INTERRUPTED:
      return new Failure("TURN_INTERRUPTED");
    case FinishReason.ROLLED_BACK:
      return new Failure("TURN_ROLLED_BACK");
    case FinishReason.DEADLINE:
      return new Failure("DEADLINE_EXCEEDED");
    case FinishReason.ERROR:
      return new Failure("INTERNAL");
    default:
      return undefined;
  }
}

/** Whether an entry is its log's last. */
export function isLastEntry(entry: TurnLogEntry): boolean {
  return entry.event?.event.case === "turnCompleted";
}

/** The entry's number in its turn's log. */
export function sequenceOf(entry: TurnLogEntry): bigint {
  return entry.event?.sequence ?? 0n;
}
