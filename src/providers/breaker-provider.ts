import CircuitBreaker from "opossum";
import { type Model, ModelCallFailure } from "../engine/model.ts";
import { Failure } from "../failure.ts";

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
  onState?(state: "closed" | "half_open" | "open"): void;
}

/**
 * Wraps one model at one endpoint with a circuit breaker. While it is open, calls are refused with MODEL_UNAVAILABLE and
 * none is made; then one call tries.
 *
 * What counts is how a reply *ended*: a stream that is cut or stalls after its first text is a failure. A refusal or a
 * rate limit is an answer of a living server and counts as a success; a call that was cancelled counts as nothing. The
 * breaker is opossum's; it is told of outcomes and asked for its state, since a promise that it fires itself has but two
 * ways to settle.
 */
export function withBreaker(model: Model, options: BreakerOptions): Model & { close(): void } {
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
  // A call that began before the breaker opened says nothing about the endpoint after it.
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

  const report = (outcome: "success" | "failure"): void => {
    breaker.fire(outcome === "success" ? Promise.resolve() : Promise.reject(new Error(outcome))).catch(() => undefined);
  };

  return {
    async call(request, observer) {
      if (breaker.opened || (breaker.halfOpen && probing)) {
        throw new Failure("MODEL_UNAVAILABLE", { retryAfterMs: Math.max(1, openedMs + resetMs - performance.now()) });
      }
      const isProbe = breaker.halfOpen;
      if (isProbe) probing = true;
      const begun = period;
      let undecided = isProbe;
      // A budget, or the store, kept the call from being sent: that says nothing about the endpoint.
      let heldBack = false;
      const decide = (outcome: "success" | "failure"): void => {
        undecided = false;
        if (begun === period) report(outcome);
      };
      try {
        const reply = await model.call(request, {
          ...observer,
          async beforeAttempt(attempt) {
            heldBack = true;
            await observer.beforeAttempt(attempt);
            heldBack = false;
          },
          onText(text) {
            // One probe that speaks is enough to let the others in; they need not wait for its end.
            if (undecided) decide("success");
            observer.onText(text);
          },
        });
        if (undecided || !isProbe) decide("success");
        return reply;
      } catch (error) {
        const reason = error instanceof Failure ? error.reason : undefined;
        if (!heldBack && reason !== "CALL_CANCELLED") {
          const failed = reason === "MODEL_UNAVAILABLE" || !(error instanceof ModelCallFailure);
          if (failed || undecided || !isProbe) decide(failed ? "failure" : "success");
        }
        throw error;
      } finally {
        // A cancelled probe has shown nothing: the next call tries.
        if (isProbe && undecided && begun === period) probing = false;
      }
    },
    close: () => breaker.shutdown(),
  };
}
