/** Lets so many calls be made at a time; further ones wait, first come, first served. */
export interface CallSlots {
  /** Waits for a slot; resolves with how to give it back. Rejects with the signal's reason, and has no slot then. */
  take(signal: AbortSignal): Promise<() => void>;
}

export function createCallSlots(most: number): CallSlots {
  let taken = 0;
  const waiting = new Set<() => void>();

  const giveBack = (): void => {
    const [next] = waiting;
    if (next === undefined) taken--;
    else next();
  };
  return {
    async take(signal) {
      signal.throwIfAborted();
      if (taken < most) {
        taken++;
        return giveBack;
      }
      const { promise, resolve, reject } = Promise.withResolvers<() => void>();
      const next = (): void => {
        waiting.delete(next);
        resolve(giveBack);
      };
      const givenUp = (): void => {
        // Whoever is not in the line any more has its slot.
        if (waiting.delete(next)) reject(signal.reason);
      };
      waiting.add(next);
      signal.addEventListener("abort", givenUp, { once: true });
      try {
        return await promise;
      } finally {
        signal.removeEventListener("abort", givenUp);
      }
    },
  };
}
