import { type Model, ModelCallFailure } from "../engine/model.ts";

/**
 * Tells the observer of each attempt that was made. Stands around one endpoint, below breaker and fallback: every request
 * that is sent to a model passes here, and none that a breaker held back. What is to be done before an attempt is sent
 * and after it has ended (a hold and its settlement) belongs here.
 */
export function withAttempts(model: Model): Model {
  return {
    async call(request, observer) {
      try {
        const reply = await model.call(request, observer);
        observer.onAttempt({ model: reply.model, outcome: "ok", usage: reply.usage });
        return reply;
      } catch (error) {
        if (error instanceof ModelCallFailure) {
          const outcome = error.reason === "CALL_CANCELLED" ? "cancelled" : "failed";
          observer.onAttempt({ model: error.model, outcome, usage: error.usage });
        }
        throw error;
      }
    },
  };
}
