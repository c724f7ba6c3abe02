import { type Model, ModelCallFailure } from "../engine/model.ts";
import { Failure } from "../failure.ts";
import { type BreakerOptions, createOutcomeBreaker } from "../platform/outcome-breaker.ts";

/**
 * Wraps one model at one endpoint with a circuit breaker. While it is open, calls are refused with MODEL_UNAVAILABLE and
 * none is made; then one call tries.
 *
 * What counts is how a reply *ended*: a stream that is cut or stalls after its first text is a failure. A refusal or a
 * rate limit is an answer of a living server and counts as a success; a call that was cancelled counts as nothing.
 */
export function withBreaker(model: Model, options: BreakerOptions): Model & { close(): void } {
  const breaker = createOutcomeBreaker(options);
  return {
    async call(request, observer) {
      const begun = breaker.begin();
      if (begun === undefined) throw new Failure("MODEL_UNAVAILABLE", { retryAfterMs: breaker.retryAfterMs() });
      // A budget, or the store, kept the call from being sent: that says nothing about the endpoint.
      let heldBack = false;
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
            if (begun.isUndecided) begun.decide("success");
            observer.onText(text);
          },
        });
        if (begun.isUndecided || !begun.isProbe) begun.decide("success");
        return reply;
      } catch (error) {
        const reason = error instanceof Failure ? error.reason : undefined;
        if (!heldBack && reason !== "CALL_CANCELLED") {
          const failed = reason === "MODEL_UNAVAILABLE" || !(error instanceof ModelCallFailure);
          if (failed || begun.isUndecided || !begun.isProbe) begun.decide(failed ? "failure" : "success");
        }
        throw error;
      } finally {
        begun.end();
      }
    },
    close: () => breaker.close(),
  };
}
