import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { type Model, ModelCallFailure } from "../engine/model.ts";
import { tokenizerFor } from "../engine/tokenizer.ts";

/**
 * Holds a model to the largest output that it was asked for. A server that says more than that is cut off: what it said
 * within the bound is the reply, and ends with `length`.
 *
 * @param name The model at the endpoint; its tokenizer counts.
 */
export function withOutputBound(model: Model, name: string): Model {
  const tokenizer = tokenizerFor(name);
  return {
    async call(request, observer) {
      const { signal, onText } = observer;
      const bound = new AbortController();
      const follow = (): void => bound.abort(signal.reason);
      if (signal.aborted) follow();
      signal.addEventListener("abort", follow, { once: true });
      let text = "";
      let tokens = 0;
      let exceeded = false;
      const say = (piece: string): void => {
        if (exceeded) return;
        // The counts of pieces add up to more than the whole: only when they reach the bound is the whole counted.
        tokens += tokenizer.countText(piece);
        if (tokens > request.maxOutputTokens) tokens = tokenizer.countText(text + piece);
        if (tokens > request.maxOutputTokens) {
          exceeded = true;
          bound.abort(new Error("the output reached its bound"));
          return;
        }
        text += piece;
        onText(piece);
      };
      try {
        const reply = await model.call(request, { ...observer, signal: bound.signal, onText: say });
        return exceeded ? { ...reply, text, ended: "length" } : reply;
      } catch (error) {
        if (!exceeded || signal.aborted || !(error instanceof ModelCallFailure)) throw error;
        const usage = {
          promptTokens: error.usage.promptTokens,
          completionTokens: tokenizer.countText(text),
          source: UsageSource.TOKENIZER_ESTIMATE,
        };
        return { model: error.model, text, toolCalls: [], ended: "length", usage };
      } finally {
        signal.removeEventListener("abort", follow);
      }
    },
  };
}
