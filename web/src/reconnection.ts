import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { TurnCursorSchema } from "../../gen/parley/chat/v1/turn_pb.js";

/** Waits between attempts, in milliseconds: doubled from the first to the most, a quarter more or less. */
const WAIT_MS = { first: 300, most: 8_000 } as const;

/** Attempts end when nothing was heard for as many milliseconds. */
const GIVE_UP_MS = 120_000;

/** What to do when a call that begins or reads a turn has ended too early. */
export type NextStep =
  /** Call again. With a turn id: the turn goes on, so that it is to be read. */
  | { readonly kind: "again"; readonly turnId: string; readonly atOnce: boolean; readonly leastMs: number }
  /** The log begins later: read on after that sequence. */
  | { readonly kind: "skip"; readonly afterSequence: bigint }
  /** The log is not there, or not what it was: the history has what stands. */
  | { readonly kind: "gone" }
  /** To call again would change nothing. */
  | { readonly kind: "fail" };

export function nextStepAfter(thrown: unknown): NextStep {
  const error = ConnectError.from(thrown);
  const { reason = "", metadata = {} } = error.findDetails(ErrorInfoSchema)[0] ?? {};
  if (reason === "TURN_NOT_FOUND" || reason === "CURSOR_OUT_OF_RANGE") return { kind: "gone" };
  if (reason === "TURN_LOG_TRIMMED") {
    return { kind: "skip", afterSequence: BigInt(metadata.oldest_sequence ?? "1") - 1n };
  }
  // The cursor of a busy session is another turn's.
  const cursor = reason === "SESSION_BUSY" ? undefined : error.findDetails(TurnCursorSchema)[0];
  if (cursor !== undefined) return { kind: "again", turnId: cursor.turnId, atOnce: true, leastMs: 0 };
  const mayPass = reason === "" ? !FINAL_CODES.has(error.code) : error.code === Code.Unavailable;
  if (!mayPass) return { kind: "fail" };
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const leastMs = delay === undefined ? 0 : Number(delay.seconds) * 1_000 + delay.nanos / 1e6;
  return { kind: "again", turnId: "", atOnce: false, leastMs: Math.min(leastMs, WAIT_MS.most) };
}

/** Codes that whatever stands before the service does not take back in a moment. */
const FINAL_CODES: ReadonlySet<Code> = new Set([
  Code.InvalidArgument,
  Code.NotFound,
  Code.PermissionDenied,
  Code.Unauthenticated,
  Code.Unimplemented,
]);

/** How long to wait before the next attempt. */
export interface Patience {
  /** The service has said something. */
  heard(): void;
  /** Milliseconds; undefined: it is enough. */
  nextWaitMs(step: { atOnce: boolean; leastMs: number }): number | undefined;
}

export function createPatience(): Patience {
  let failures = 0;
  let sinceMs = 0;
  return {
    heard() {
      failures = 0;
    },
    nextWaitMs({ atOnce, leastMs }) {
      const nowMs = performance.now();
      if (failures === 0) sinceMs = nowMs;
      if (nowMs - sinceMs > GIVE_UP_MS) return undefined;
      failures++;
      if (failures === 1 && atOnce) return 0;
      const waitMs = Math.min(WAIT_MS.first * 2 ** (failures - 1), WAIT_MS.most);
      return Math.max(waitMs * (0.75 + Math.random() / 2), leastMs);
    },
  };
}
