/** The longest wait of a timer, in milliseconds: https://developer.mozilla.org/docs/Web/API/Window/setTimeout#maximum_delay_value */
export const LONGEST_TIMER_MS = 2_147_483_647;

/**
 * Waits. Ends early when the signal is aborted or, in a browser, when the machine is on the network again. Never rejects.
 */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      network?.removeEventListener("online", done);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, Math.min(ms, LONGEST_TIMER_MS));
    const network = networkOf(globalThis);
    network?.addEventListener("online", done);
    signal.addEventListener("abort", done);
  });
}

/** Where browsers tell that the machine is on the network again; Node and edge runtimes tell nobody. */
function networkOf(runtime: { navigator?: object }): EventTarget | undefined {
  return runtime.navigator !== undefined && "onLine" in runtime.navigator && runtime instanceof EventTarget
    ? runtime
    : undefined;
}
