import { type Model, ModelCallFailure, type ModelRequest } from "../engine/model.ts";
import { Failure } from "../failure.ts";

/**
 * Tries models in order: the next one when one is unavailable or limits the rate, only while nothing was said (a reply
 * that has begun is never begun again by another model), and only while the call's tokens allow another attempt.
 *
 * Throws the last failure, except where only an earlier one can pass by itself: then a retry makes sense, and that one
 * says so.
 */
export function withFallback(models: readonly [Model, ...Model[]]): Model {
  return {
    async call(request, observer) {
      let spoken = false;
      const listener = {
        ...observer,
        onText(text: string): void {
          spoken = true;
          observer.onText(text);
        },
      };
      let attempt: ModelRequest | undefined = request;
      let passing: Failure | undefined;
      for (const model of models) {
        try {
          return await model.call(attempt, listener);
        } catch (error) {
          if (spoken || observer.signal.aborted) throw error;
          if (!passes(error)) throw passing ?? error;
          passing = error;
          attempt = lessUsed(attempt, error);
          if (attempt === undefined) break;
        }
      }
      throw passing;
    },
  };
}

/** The request, bounded by the tokens that a failed attempt has left; undefined: none are left for an answer. */
function lessUsed(request: ModelRequest, error: Failure): ModelRequest | undefined {
  if (!(error instanceof ModelCallFailure)) return request;
  const { promptTokens, completionTokens } = error.usage;
  const maxTotalTokens = request.maxTotalTokens - promptTokens - completionTokens;
  const maxOutputTokens = Math.min(request.maxOutputTokens, maxTotalTokens - promptTokens);
  return maxOutputTokens < 1 ? undefined : { ...request, maxTotalTokens, maxOutputTokens };
}

/** Whether a failure passes by itself, so that another endpoint, or the same one later, may do better. */
function passes(error: unknown): error is Failure {
  return error instanceof Failure && (error.reason === "MODEL_UNAVAILABLE" || error.reason === "MODEL_RATE_LIMITED");
}
