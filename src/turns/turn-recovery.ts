import { type Repetition, repeat } from "../platform/repeat.ts";
import type { TurnStore } from "./ports.ts";
import type { TurnRunner } from "./turn-runner.ts";

/** Between two looks for abandoned turns, in milliseconds: a lease and two seconds is what a turn may stand still. */
const LOOK_MS = 500;

/** Turns that are taken over at a time, at most: other processes look too. */
const TURNS_PER_LOOK = 32;

/** Looks for turns whose owners are lost and goes on with them, until it is stopped. A store that does not answer is asked again at the next look. */
export function startTurnRecovery({
  store,
  runner,
  onError,
}: {
  store: Pick<TurnStore, "claimTurns">;
  runner: Pick<TurnRunner, "takeOver">;
  /** A look failed, or a turn could not be gone on with; its lease runs out and it is found again. */
  onError(error: unknown): void;
}): Repetition {
  return repeat(
    async (isStopped) => {
      // Until there are none: a process that is lost leaves many at once.
      for (let left = true; left && !isStopped(); ) {
        const claimed = await store.claimTurns(TURNS_PER_LOOK);
        await Promise.all(claimed.map((turn) => runner.takeOver(turn).catch(onError)));
        left = claimed.length > 0;
      }
    },
    { everyMs: LOOK_MS, onError },
  );
}
