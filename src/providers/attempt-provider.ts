import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { type CallUsage, type Model, ModelCallFailure, type ModelRequest } from "../engine/model.ts";
import { tokenizerFor } from "../engine/tokenizer.ts";

/**
 * Tells the observer of each attempt: before it is sent, when it was made, or that it was not. Stands around one endpoint,
 * below breaker and fallback: every request that is sent to a model passes here, and none that a breaker held back.
 *
 * @param name The model that the endpoint is asked for, as it is priced; its tokenizer counts the prompt.
 */
export function withAttempts(model: Model, name: string): Model {
  return {
    async call(request, observer) {
      const promptTokens = largestPrompt(request, name);
      const maxOutputTokens = Math.max(1, Math.min(request.maxOutputTokens, request.maxTotalTokens - promptTokens));
      await observer.beforeAttempt({ model: name, promptTokens, maxOutputTokens, timeoutMs: request.timeoutMs });
      try {
        const reply = await model.call({ ...request, maxOutputTokens }, observer);
        const usage = within(reply.usage, maxOutputTokens);
        observer.onAttempt({ model: reply.model, outcome: "ok", usage });
        return { ...reply, usage };
      } catch (error) {
        if (error instanceof ModelCallFailure) {
          const outcome = error.reason === "CALL_CANCELLED" ? "cancelled" : "failed";
          observer.onAttempt({ model: error.model, outcome, usage: within(error.usage, maxOutputTokens) });
        } else {
          observer.onUnsent();
        }
        throw error;
      }
    },
  };
}

/**
 * What a prompt is counted as at most. Messages are counted as the provider counts them; how it renders tools nobody says,
 * and no tokenizer makes more tokens of their JSON than it has bytes.
 */
function largestPrompt({ messages, tools }: ModelRequest, model: string): number {
  const toolBytes = tools.length === 0 ? 0 : Buffer.byteLength(JSON.stringify(tools));
  return tokenizerFor(model).countPrompt(messages) + toolBytes;
}

/** Usage as it can be charged: an estimate is never more than what was asked for. What a provider counted stands. */
function within(usage: CallUsage, maxOutputTokens: number): CallUsage {
  if (usage.source === UsageSource.PROVIDER || usage.completionTokens <= maxOutputTokens) return usage;
  return { ...usage, completionTokens: maxOutputTokens };
}
