import CircuitBreaker from "opossum";

export interface BreakerOptions {
  /** Outcomes are counted over this many milliseconds. */
  readonly windowMs: number;
  /** Outcomes in the window below which the breaker stays closed. */
  readonly minCalls: number;
  /** The breaker opens when failures are this share of the outcomes or more, in percent. */
  readonly errorThresholdPercent: number;
  /** An open breaker lets one call try after this many milliseconds. */
  readonly resetMs: number;
  /** Called with each new state, and with `closed` at once. */
  onState?(state: BreakerState): void;
}

export type BreakerState = "closed" | "half_open" | "open";

/**
 * A circuit breaker that is told of outcomes and asked whether a call may be made. It is opossum's; a promise that opossum
 * fires itself has but two ways to settle, and a call that was cancelled is neither a success nor a failure.
 */
export interface OutcomeBreaker {
  /** Lets a call be made; undefined: none is to be made now, since the breaker is open, or half-open and its one probe is out. */
  begin(): BreakerCall | undefined;
  /** Milliseconds until an open breaker lets a call try; at least 1. */
  retryAfterMs(): number;
  close(): void;
}

/** A call that was let through. {@link BreakerCall.end} must follow, whatever comes of it. */
export interface BreakerCall {
  /** Whether an outcome is still missing that a half-open breaker waits for. */
  readonly isUndecided: boolean;
  /** Whether it is the one call that a half-open breaker has let through. */
  readonly isProbe: boolean;
  decide(outcome: "success" | "failure"): void;
  /** A probe that has decided nothing lets the next call try. */
  end(): void;
}

export function createOutcomeBreaker(options: BreakerOptions): OutcomeBreaker {
  const { windowMs, minCalls, errorThresholdPercent, resetMs, onState = () => undefined } = options;
  const breaker = new CircuitBreaker((outcome: Promise<void>) => outcome, {
    timeout: false,
    volumeThreshold: minCalls,
    // opossum opens above its threshold, so that 100 would never open.
    errorThresholdPercentage: errorThresholdPercent - 0.001,
    resetTimeout: resetMs,
    rollingCountTimeout: windowMs,
    rollingPercentilesEnabled: false,
    enableSnapshots: false,
  });
  let openedMs = 0;
  let probing = false;
  // A call that began before the breaker opened says nothing about the other side after it.
  let period = 0;
  breaker.on("open", () => {
    openedMs = performance.now();
    period++;
    onState("open");
  });
  breaker.on("halfOpen", () => {
    probing = false;
    onState("half_open");
  });
  breaker.on("close", () => onState("closed"));
  onState("closed");

  return {
    begin() {
      if (breaker.opened || (breaker.halfOpen && probing)) return undefined;
      const isProbe = breaker.halfOpen;
      if (isProbe) probing = true;
      const begun = period;
      let isUndecided = isProbe;
      return {
        isProbe,
        get isUndecided() {
          return isUndecided;
        },
        decide(outcome) {
          isUndecided = false;
          if (begun !== period) return;
          const told = outcome === "success" ? Promise.resolve() : Promise.reject(new Error(outcome));
          breaker.fire(told).catch(() => undefined);
        },
        end() {
          if (isUndecided && begun === period) probing = false;
        },
      };
    },
    retryAfterMs: () => Math.max(1, openedMs + resetMs - performance.now()),
    close: () => breaker.shutdown(),
  };
}
