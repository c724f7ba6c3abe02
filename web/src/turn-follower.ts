import { isConnectionLost, type Parley, type TurnEvent } from "../../client/client.ts";
import { FinishReason, TurnState as ServerTurnState } from "../../gen/parley/chat/v1/turn_pb.js";
import type { Cell } from "./cell.ts";
import { type Problem, problemOf } from "./problem.ts";
import { requestOf, type SentTurn } from "./sent-turn.ts";

/**
 * A turn that nobody looks at is asked after this often, in milliseconds, instead of being streamed: a browser opens six
 * connections to an origin at most, for all its tabs.
 */
const ASK_MS = 5_000;

/** How the reading of a turn ended. */
export interface FollowEnd {
  /** What went wrong, if anything did. */
  readonly problem?: Problem;
  /** Nothing was heard for too long: to follow the turn again may help. */
  readonly mayRetry?: boolean;
  /** The turn cannot be read; the history has what stands. */
  readonly gone?: boolean;
}

export interface FollowPorts {
  readonly parley: Parley;
  /** Aborted when the turn is no longer to be followed. */
  readonly signal: AbortSignal;
  /** Whether somebody looks at the turn. */
  readonly watched: Cell<boolean>;
  /** Called for every event, each of the log's once and in order. */
  onEvent(event: TurnEvent): void;
  /** Called when the service is first heard, when the connection is lost, and when it is back. */
  onConnection(connection: "lost" | "fine"): void;
}

/** Begins a turn, or finds it, and reads it to its end, but while nobody looks. Never rejects. */
export async function followTurn(sent: SentTurn, ports: FollowPorts): Promise<FollowEnd> {
  const { parley, signal, watched, onEvent, onConnection } = ports;
  let { turnId } = sent;
  let afterSequence = 0n;
  let finishReason = FinishReason.UNSPECIFIED;
  while (!signal.aborted) {
    const unwatched = new AbortController();
    // A turn that waits keeps its place as long as its call is open.
    const unwatch = watched.watch(() => {
      if (!watched.get() && turnId !== "") unwatched.abort();
    });
    try {
      if (turnId !== "" && !watched.get()) await untilWatchedOrEnded(turnId, ports);
      const options = {
        signal: AbortSignal.any([signal, unwatched.signal]),
        maxRetryDelayMs: REFUSALS_ARE_TOLD,
        skipTrimmed: true,
        onConnection,
      };
      const events =
        turnId === "" ? parley.stream(requestOf(sent), options) : parley.resume({ turnId, afterSequence }, options);
      for await (const turnEvent of events) {
        const { sequence, event } = turnEvent;
        if (sequence !== 0n) afterSequence = sequence;
        if (event.case === "turnStarted") turnId = event.value.turnId;
        if (event.case === "turnCompleted") finishReason = event.value.finishReason;
        onEvent(turnEvent);
      }
      return {};
    } catch (error) {
      if (signal.aborted) return {};
      if (finishReason === FinishReason.ERROR) return { problem: problemOf(error) };
      if (finishReason !== FinishReason.UNSPECIFIED) return {};
      if (unwatched.signal.aborted) continue;
      return endOf(error);
    } finally {
      unwatch();
    }
  }
  return {};
}

/** People decide themselves whether they wait, when they have read what for: nothing is waited for here. */
const REFUSALS_ARE_TOLD = 0;

/** How a turn ended that did not come to its end here. */
function endOf(error: unknown): FollowEnd {
  const problem = problemOf(error);
  const gone = ["TURN_NOT_FOUND", "CURSOR_OUT_OF_RANGE", "TURN_LOG_TRIMMED"].includes(problem.reason);
  return { problem, gone, mayRetry: isConnectionLost(error) };
}

/** Resolves when somebody looks, or when there is an end to be read. */
async function untilWatchedOrEnded(
  turnId: string,
  { parley, signal, watched, onConnection }: FollowPorts,
): Promise<void> {
  const options = { signal, maxRetryDelayMs: REFUSALS_ARE_TOLD, onConnection };
  while (!watched.get()) {
    await untilWatched(watched, signal);
    signal.throwIfAborted();
    if (watched.get()) return;
    const { turn } = await parley.retry((call) => parley.turns.getTurn({ turnId }, call), options);
    if (turn?.state === ServerTurnState.FINISHED) return;
  }
}

/** Resolves when somebody looks, or it is time to ask, or the signal is aborted. */
function untilWatched(watched: Cell<boolean>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      unwatch();
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ASK_MS);
    const unwatch = watched.watch(done);
    signal.addEventListener("abort", done);
  });
}
