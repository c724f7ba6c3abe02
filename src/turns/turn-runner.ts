import type { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { Failure } from "../failure.ts";
import { sleep } from "../platform/sleep.ts";
import type { CurrentDefinitions } from "./definitions.ts";
import type { ClaimedTurn, StopReason, TurnRef, TurnStore } from "./ports.ts";
import type { AccountPorts } from "./turn-account.ts";
import { type BegunTurn, executeTurn } from "./turn-execution.ts";
import type { TurnObserver } from "./turn-observer.ts";
import { TurnStopped } from "./turn-stopped.ts";
import { resumedTurn } from "./turn-takeover.ts";

/** A turn that this process has begun and works on. */
export interface RunningTurn {
  readonly ref: TurnRef;
  /** Ends the turn early, with what was said, even if this process has lost it. */
  stop(finishReason: FinishReason.CANCELLED | FinishReason.DEADLINE): void;
  /** Aborted when this process cannot go on with the turn and did not write its end. */
  readonly lost: AbortSignal;
}

export interface TurnRunnerPorts extends AccountPorts {
  readonly store: TurnStore;
  readonly definitions: CurrentDefinitions;
  readonly leaseMs: number;
  readonly observer: TurnObserver;
}

/** A turn that this process works on. */
interface Work {
  readonly turn: BegunTurn;
  readonly stop: AbortController;
  readonly lost: AbortController;
  readonly done: Promise<void>;
}

/** Works on turns, each to its end, whoever reads them. */
export class TurnRunner {
  readonly #ports: TurnRunnerPorts;
  readonly #running = new Map<string, Work>();
  /** Turns that wait in this process for their session. */
  #waiting = 0;
  #drained = false;
  readonly #unlisten: () => void;

  constructor(ports: TurnRunnerPorts) {
    this.#ports = ports;
    this.#unlisten = ports.store.onStop((turnId) => this.#lookAfter(turnId));
  }

  /** Turns that this process works on. */
  get inFlight(): number {
    return this.#running.size;
  }

  /** Whether this process takes no turn any more, waiting ones included. */
  get drained(): boolean {
    return this.#drained;
  }

  /** A turn that was accepted begins to wait (+1), or waits no more (-1): it is not left behind by a drain. */
  waits(by: 1 | -1): void {
    this.#waiting += by;
  }

  /**
   * Begins to work on a turn, in the next tick: whoever follows the log by then misses nothing. It keeps the definitions
   * to its end; default: those that hold now.
   */
  start(turn: BegunTurn, definitions = this.#ports.definitions.current): RunningTurn {
    const letGo = definitions.hold();
    const stop = new AbortController();
    const lost = new AbortController();
    // One that may end without a single call, and so without waiting for anything, could have ended before it is followed.
    const { continued, end, team } = turn;
    const callsFirst = continued === undefined && end === undefined && team.guardrails === undefined;
    const followed = callsFirst ? Promise.resolve() : sleep(0);
    const done = followed
      .then(() => executeTurn(turn, { ports: { ...this.#ports, ...definitions }, stop, lost }))
      .finally(() => {
        letGo();
        if (this.#running.get(turn.lease.turnId)?.stop === stop) this.#running.delete(turn.lease.turnId);
      });
    this.#running.set(turn.lease.turnId, { turn, stop, lost, done });
    // Its admission was under way when all others were handed over.
    if (this.#drained) {
      lost.abort(goingAway());
      void done.then(() => this.#handOver(turn));
    }
    return {
      ref: turn.lease,
      lost: lost.signal,
      stop: (finishReason) => {
        stop.abort(new TurnStopped(finishReason));
        // Where another owner has the turn, or will have it, that one ends it.
        void done.then(async () => {
          if (lost.signal.aborted) await this.#ports.store.stopTurn(turn.lease, finishReason).catch(() => undefined);
        });
      },
    };
  }

  /** Goes on with a turn whose owner was lost, or ends it. Rejects when the store cannot be read. */
  async takeOver(claimed: ClaimedTurn): Promise<void> {
    this.#ports.observer.turnTakenOver({ lease: claimed.lease, takeovers: claimed.takeovers });
    this.start(await this.#resumed(claimed));
  }

  /** Ends a turn that was taken from its owner for that, and waits until its end is written. */
  async end(claimed: ClaimedTurn): Promise<void> {
    const turn = await this.#resumed(claimed);
    this.start(turn);
    await this.#running.get(turn.lease.turnId)?.done;
  }

  /**
   * Waits until the running turns have ended, and those that wait for their session. After `deadlineMs` those that have
   * not are handed over: their leases are given up, so that another process finds them at once.
   */
  async drain(deadlineMs: number): Promise<void> {
    const untilMs = performance.now() + deadlineMs;
    while (this.#running.size + this.#waiting > 0 && performance.now() < untilMs) {
      await sleep(Math.min(untilMs - performance.now(), DRAIN_LOOK_MS));
    }
    this.#drained = true;
    const left = [...this.#running.values()];
    for (const { lost } of left) lost.abort(goingAway());
    await Promise.all(left.map(({ done }) => done));
    await Promise.all(left.map(({ turn }) => this.#handOver(turn)));
    this.#unlisten();
  }

  #resumed(claimed: ClaimedTurn): Promise<BegunTurn> {
    const { store, definitions } = this.#ports;
    return resumedTurn(claimed, { store, teams: definitions.current.teams });
  }

  /** Gives up the lease of a turn that this process does not work on any more. A lease that cannot be given up runs out. */
  async #handOver({ lease }: BegunTurn): Promise<void> {
    await this.#ports.store.releaseLease(lease).catch(() => undefined);
  }

  /** Somebody wants the turn to end: the store says why. */
  #lookAfter(turnId: string): void {
    const work = this.#running.get(turnId);
    if (work === undefined) return;
    this.#ports.store.renewLease(work.turn.lease).then(
      (reason: StopReason | undefined) => {
        if (reason !== undefined) work.stop.abort(new TurnStopped(reason));
      },
      (error: unknown) => {
        if (error instanceof Failure && error.reason !== "STORE_UNAVAILABLE") work.lost.abort(error);
      },
    );
  }
}

/** So often a drain looks whether it is done, in milliseconds. */
const DRAIN_LOOK_MS = 20;

/** Another process answers, or goes on with a turn that is handed over, within about this time, in milliseconds. */
const GOING_AWAY_RETRY_MS = 1_000;

/** What is refused, or given up, because this process goes away. */
export function goingAway(): Failure {
  return new Failure("DRAINING", { retryAfterMs: GOING_AWAY_RETRY_MS });
}
