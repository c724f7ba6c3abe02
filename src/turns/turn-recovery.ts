import type { TurnStore } from "./ports.ts";
import type { TurnRunner } from "./turn-runner.ts";

/** Between two looks for abandoned turns, in milliseconds: a lease and two seconds is what a turn may stand still. */
const LOOK_MS = 500;

/** Turns that are taken over at one look, at most: other processes look too. */
const TURNS_PER_LOOK = 32;

/** Looks for turns whose owners are lost and goes on with them. */
export interface TurnRecovery {
  /** Looks no more; resolves when the last look is over. */
  stop(): Promise<void>;
}

/** Looks at once and then all the time. A store that does not answer is asked again at the next look. */
export function startTurnRecovery({
  store,
  runner,
  onError,
}: {
  store: Pick<TurnStore, "claimTurns">;
  runner: Pick<TurnRunner, "takeOver">;
  /** A look failed, or a turn could not be gone on with; its lease runs out and it is found again. */
  onError(error: unknown): void;
}): TurnRecovery {
  let stopped = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const look = async (): Promise<void> => {
    try {
      const claimed = await store.claimTurns(TURNS_PER_LOOK);
      await Promise.all(claimed.map((turn) => runner.takeOver(turn).catch(onError)));
    } catch (error) {
      onError(error);
    }
  };
  const next = (): void => {
    if (stopped) return;
    timer = setTimeout(() => {
      looking = look().finally(next);
    }, LOOK_MS);
  };
  let looking = look().finally(next);
  return {
    async stop() {
      stopped = true;
      clearTimeout(timer);
      await looking;
    },
  };
}
