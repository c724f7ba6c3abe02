/** Work that is done again and again until it is stopped. */
export interface Repetition {
  /** No more; resolves when the last round is over. */
  stop(): Promise<void>;
}

/**
 * Does some work at once, and again so many milliseconds after each round's end. What a round rejects with goes to `onError`;
 * the next one comes all the same.
 *
 * @param work Is told when it is to come to its end, between two steps.
 */
export function repeat(
  work: (isStopped: () => boolean) => Promise<void>,
  { everyMs, onError }: { everyMs: number; onError(error: unknown): void },
): Repetition {
  let stopped = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const round = (): Promise<void> =>
    work(() => stopped)
      .catch(onError)
      .finally(next);
  const next = (): void => {
    if (stopped) return;
    timer = setTimeout(() => {
      underWay = round();
    }, everyMs);
  };
  let underWay = round();
  return {
    async stop() {
      stopped = true;
      clearTimeout(timer);
      await underWay;
    },
  };
}
