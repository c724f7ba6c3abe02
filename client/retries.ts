import type { MessageInitShape } from "@bufbuild/protobuf";
import { type CallOptions, Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema } from "../gen/google/rpc/error_details_pb.js";
import { TurnCursorSchema } from "../gen/parley/chat/v1/turn_pb.js";
import { type NextStep, nextStepAfter } from "./next-step.ts";
import { LONGEST_TIMER_MS, pause } from "./pause.ts";

/** How long to go on with a call, over as many attempts as it takes. */
export interface RetryOptions {
  /**
   * The call ends so many milliseconds after it was made, all attempts and waits included, with DEADLINE_EXCEEDED. The
   * service is told. Default: none.
   */
  readonly timeoutMs?: number;
  /** Ends the call when it is aborted, with CANCELED, the signal's reason being the error's cause. */
  readonly signal?: AbortSignal;
  /**
   * Attempts that come to nothing end after so many milliseconds without a sign of life, with the last one's error.
   * Default: `timeoutMs`, else 120,000.
   */
  readonly patienceMs?: number;
  /**
   * The longest wait, in milliseconds, that a refusal may ask for in its `RetryInfo` (RATE_LIMITED, SESSION_QUEUE_FULL …);
   * one that asks for more than this, or than is left of the deadline, is thrown at once. Default: `patienceMs`. 0: all are.
   */
  readonly maxRetryDelayMs?: number;
  /** Called with "fine" when the service is first heard, with "lost" when the connection is lost and does not come back at once. */
  readonly onConnection?: (connection: "lost" | "fine") => void;
}

/** Without a deadline attempts end when nothing was heard for as many milliseconds. */
const PATIENCE_MS = 120_000;

/** Waits between attempts, in milliseconds: doubled from the first to the most, a quarter more or less. */
const WAIT_MS = { first: 300, most: 8_000 } as const;

/** The longest deadline that the service takes, in milliseconds; what lasts longer is several calls. */
const LONGEST_CALL_MS = 3_600_000;

/** The service breaks a silence of 15 seconds; a stream that is silent for longer than twice that, in milliseconds, is dead. */
const SILENCE_MS = 40_000;

/** Attempts at one thing, until their deadline. */
export interface Retries {
  attempt(): Attempt;
  /** The service has said something. */
  heard(): void;
  /** Throws the error if there is to be no further attempt; else waits until it is time, and says what was to be done. */
  afterFailure(error: unknown): Promise<NextStep>;
  /** Releases the deadline's timer. */
  close(): void;
}

/** One call. */
export interface Attempt {
  readonly options: CallOptions;
  /** From now on silence may end it. */
  listen(): void;
  /** Nothing is listened to for now. */
  rest(): void;
  /** Ends it, if it has not ended. */
  end(): void;
}

/** Begins the time of the deadline. `cursorOf` says which turn goes on when it ends, where one does. */
export function startRetries(
  options: RetryOptions,
  cursorOf: () => MessageInitShape<typeof TurnCursorSchema> | undefined = () => undefined,
): Retries {
  const { timeoutMs, patienceMs = timeoutMs ?? PATIENCE_MS, maxRetryDelayMs = patienceMs, onConnection } = options;
  const startMs = performance.now();
  const leftMs = (): number => (timeoutMs ?? Number.POSITIVE_INFINITY) - (performance.now() - startMs);
  const deadline = new AbortController();
  const timer =
    timeoutMs === undefined
      ? undefined
      : setTimeout(() => deadline.abort(), Math.max(0, Math.min(timeoutMs, LONGEST_TIMER_MS)));
  const over = AbortSignal.any([deadline.signal, ...(options.signal === undefined ? [] : [options.signal])]);
  const backoff = createBackoff();
  let connection: "lost" | "fine" | undefined;
  const tell = (now: "lost" | "fine"): void => {
    if (connection !== now) onConnection?.(now);
    connection = now;
  };

  /** The reason to end here whatever the service says; the turn itself goes on. */
  const ending = (cause: unknown): ConnectError | undefined => {
    const aborted = options.signal?.aborted === true;
    if (!aborted && !deadline.signal.aborted && leftMs() > 0) return undefined;
    const cursor = cursorOf();
    const info = { domain: "parley", reason: aborted ? "CALL_CANCELLED" : "DEADLINE_EXCEEDED" };
    const details = [
      { desc: ErrorInfoSchema, value: info },
      ...(cursor === undefined ? [] : [{ desc: TurnCursorSchema, value: cursor }]),
    ];
    return aborted
      ? new ConnectError("The caller cancelled the call.", Code.Canceled, undefined, details, options.signal?.reason)
      : new ConnectError("The call's deadline has passed.", Code.DeadlineExceeded, undefined, details, cause);
  };

  return {
    attempt() {
      const ended = ending(undefined);
      if (ended !== undefined) throw ended;
      const gone = new AbortController();
      let silence: ReturnType<typeof setTimeout> | undefined;
      const rest = (): void => clearTimeout(silence);
      return {
        options: {
          signal: AbortSignal.any([over, gone.signal]),
          ...(timeoutMs === undefined ? {} : { timeoutMs: Math.ceil(Math.min(leftMs(), LONGEST_CALL_MS)) }),
        },
        listen() {
          rest();
          silence = setTimeout(
            () => gone.abort(new ConnectError("The service is silent.", Code.Unavailable)),
            SILENCE_MS,
          );
        },
        rest,
        end() {
          rest();
          gone.abort();
        },
      };
    },

    heard() {
      backoff.reset();
      tell("fine");
    },

    async afterFailure(error) {
      const early = ending(error);
      if (early !== undefined) throw early;
      const step = nextStepAfter(error);
      if (step.kind === "fail") throw error;
      if (step.kind === "skip") return step;
      const refused = step.kind === "wait";
      if (refused && step.leastMs > Math.min(maxRetryDelayMs, leftMs())) throw error;
      const atOnce = step.kind === "reconnect" && step.turnId !== "";
      const waitMs = backoff.nextWaitMs({ atOnce, leastMs: step.leastMs, patienceMs });
      if (waitMs === undefined) throw error;
      if (waitMs > 0 && !refused) tell("lost");
      await pause(waitMs, over);
      const late = ending(error);
      if (late !== undefined) throw late;
      return step;
    },

    close: () => clearTimeout(timer),
  };
}

/** How long to wait before the next attempt. */
export interface Backoff {
  /** What was waited for has come. */
  reset(): void;
  /**
   * Milliseconds, at least `leastMs`; `atOnce`: 0 the first time. Undefined: attempts have failed for longer than
   * `patienceMs`.
   */
  nextWaitMs(wanted: { atOnce: boolean; leastMs: number; patienceMs: number }): number | undefined;
}

export function createBackoff(): Backoff {
  let failures = 0;
  let sinceMs = 0;
  return {
    reset() {
      failures = 0;
    },
    nextWaitMs({ atOnce, leastMs, patienceMs }) {
      const nowMs = performance.now();
      if (failures === 0) sinceMs = nowMs;
      if (nowMs - sinceMs > patienceMs) return undefined;
      failures++;
      if (failures === 1 && atOnce) return 0;
      const waitMs = Math.min(WAIT_MS.first * 2 ** (failures - 1), WAIT_MS.most);
      // Many who were told the same delay do not come back in the same moment.
      return Math.max(waitMs * (0.75 + Math.random() / 2), leastMs * (1 + Math.random() / 4));
    },
  };
}

/** Makes a call that may be made twice until it succeeds or must not be made again. Throws as {@link Parley.retry} says. */
export async function retried<T>(call: (options: CallOptions) => Promise<T>, options: RetryOptions): Promise<T> {
  const retries = startRetries(options);
  try {
    for (;;) {
      const attempt = retries.attempt();
      try {
        attempt.listen();
        return await call(attempt.options);
      } catch (error) {
        const step = await retries.afterFailure(error);
        if (step.kind === "skip") throw error;
      } finally {
        attempt.end();
      }
    }
  } finally {
    retries.close();
  }
}
