import { FinishReason, TurnState as ServerTurnState } from "../../gen/parley/chat/v1/turn_pb.js";
import type { Cell } from "./cell.ts";
import type { ParleyClients } from "./parley-clients.ts";
import { pause } from "./pause.ts";
import { type Problem, problemOf } from "./problem.ts";
import { createPatience, nextStepAfter } from "./reconnection.ts";
import { requestOf, type SentTurn } from "./sent-turn.ts";
import type { TurnEvent } from "./turn-state.ts";

/** The service breaks a silence of 15 seconds; a stream that is silent for longer than twice that, in milliseconds, is dead. */
const SILENCE_MS = 40_000;

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
  readonly clients: ParleyClients;
  /** Aborted when the turn is no longer to be followed. */
  readonly signal: AbortSignal;
  /** Whether somebody looks at the turn. */
  readonly watched: Cell<boolean>;
  /** Called for every event, each of the log's once and in order. */
  onEvent(event: TurnEvent): void;
  /** Called when attempts fail, and when the service is heard again. */
  onConnection(connection: "lost" | "fine"): void;
}

/** Begins a turn, or finds it, and reads it to its end over as many connections as that takes. Never rejects. */
export async function followTurn(sent: SentTurn, ports: FollowPorts): Promise<FollowEnd> {
  const { clients, signal, watched, onEvent, onConnection } = ports;
  const patience = createPatience();
  let { turnId } = sent;
  let afterSequence = 0n;
  let finishReason = FinishReason.UNSPECIFIED;
  while (!signal.aborted) {
    const attempt = beginAttempt(signal);
    // A turn that waits keeps its place as long as its call is open.
    const unwatch = watched.watch(() => {
      if (!watched.get() && turnId !== "") attempt.end();
    });
    try {
      if (turnId !== "" && !watched.get()) await untilWatchedOrEnded(turnId, ports);
      const events =
        turnId === ""
          ? clients.chat.streamChat(requestOf(sent), { signal: attempt.signal })
          : clients.chat.resumeTurn({ turnId, afterSequence }, { signal: attempt.signal });
      attempt.heard();
      for await (const response of events) {
        attempt.heard();
        patience.heard();
        onConnection("fine");
        if (response.sequence !== 0n && response.sequence <= afterSequence) continue;
        if (response.sequence !== 0n) afterSequence = response.sequence;
        if (response.event.case === "turnStarted") turnId = response.event.value.turnId;
        if (response.event.case === "turnCompleted") finishReason = response.event.value.finishReason;
        onEvent(response);
      }
      if (finishReason !== FinishReason.UNSPECIFIED) return {};
      // Cut between two events.
      throw new TypeError("the stream ended before its turn");
    } catch (error) {
      if (signal.aborted) return {};
      if (finishReason === FinishReason.ERROR)
        return problemOf(error).reason === "" ? {} : { problem: problemOf(error) };
      if (finishReason !== FinishReason.UNSPECIFIED) return {};
      if (attempt.ended) continue;
      const step = nextStepAfter(error);
      if (step.kind === "gone") return { gone: true, problem: problemOf(error) };
      if (step.kind === "fail") return { problem: problemOf(error) };
      if (step.kind === "skip") {
        if (step.afterSequence <= afterSequence) return { gone: true, problem: problemOf(error) };
        ({ afterSequence } = step);
        continue;
      }
      turnId ||= step.turnId;
      const waitMs = patience.nextWaitMs(step);
      if (waitMs === undefined) return { problem: problemOf(error), mayRetry: true };
      if (waitMs > 0) onConnection("lost");
      await pause(waitMs, signal).catch(() => undefined);
    } finally {
      unwatch();
      attempt.end();
    }
  }
  return {};
}

interface Attempt {
  readonly signal: AbortSignal;
  /** The call was ended from here. */
  readonly ended: boolean;
  heard(): void;
  end(): void;
}

/** A call that ends with the signal, or after a silence. */
function beginAttempt(signal: AbortSignal): Attempt {
  const ending = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let ended = false;
  return {
    signal: AbortSignal.any([signal, ending.signal]),
    get ended() {
      return ended;
    },
    heard() {
      clearTimeout(timer);
      timer = setTimeout(() => ending.abort(), SILENCE_MS);
    },
    end() {
      clearTimeout(timer);
      ended = true;
      ending.abort();
    },
  };
}

/** Resolves when somebody looks, or when there is an end to be read. */
async function untilWatchedOrEnded(turnId: string, { clients, signal, watched }: FollowPorts): Promise<void> {
  while (!watched.get()) {
    const looking = new AbortController();
    const unwatch = watched.watch(() => looking.abort());
    await pause(ASK_MS, AbortSignal.any([signal, looking.signal])).catch(() => undefined);
    unwatch();
    signal.throwIfAborted();
    if (watched.get()) return;
    const { turn } = await clients.chat.getTurn({ turnId }, { signal });
    if (turn?.state === ServerTurnState.FINISHED) return;
  }
}
