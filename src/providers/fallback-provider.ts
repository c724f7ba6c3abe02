import { type Model, ModelCallFailure } from "../engine/model.ts";
import { Failure } from "../failure.ts";

/**
 * Tries models in order: the next one when one is unavailable or limits the rate, and only while nothing was said: a
 * reply that has begun is never begun again by another model. Throws the last model's failure.
 */
export function withFallback(
  models: readonly [Model, ...Model[]],
  {
    onAttemptFailed = () => undefined,
  }: {
    /** Called with each call that was made and failed, before the next model is tried: its usage counts too. */
    onAttemptFailed?(failure: ModelCallFailure): void;
  } = {},
): Model {
  const [first, ...others] = models;
  return {
    async call(request, { signal, onText }) {
      let spoken = false;
      const observer = {
        signal,
        onText(text: string): void {
          spoken = true;
          onText(text);
        },
      };
      let model = first;
      for (const next of others) {
        try {
          return await model.call(request, observer);
        } catch (error) {
          if (spoken || signal.aborted || !mayMend(error)) throw error;
          if (error instanceof ModelCallFailure) onAttemptFailed(error);
          model = next;
        }
      }
      return model.call(request, observer);
    },
  };
}

/** Whether another endpoint may do better. */
function mayMend(error: unknown): boolean {
  return error instanceof Failure && (error.reason === "MODEL_UNAVAILABLE" || error.reason === "MODEL_RATE_LIMITED");
}
