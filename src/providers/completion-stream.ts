import { createParser } from "eventsource-parser";
import type { ChatCompletionChunk } from "openai/resources/chat/completions";
import type { CallUsage, ModelReply, ModelToolCall } from "../engine/model.ts";

/** What a streamed completion has said so far. */
export interface CompletionStream {
  /** Takes a piece of the body; returns the text in it. Throws {@link MalformedStream}. */
  push(chunk: Uint8Array): string;
  /** All text so far. */
  readonly text: string;
  readonly toolCalls: readonly ModelToolCall[];
  /** Why the model ended its reply; undefined: it has not, so that a body that ends here was cut. */
  readonly ended: ModelReply["ended"] | undefined;
  /** Whether the provider has said that nothing more will come. */
  readonly done: boolean;
  /** Counts as the provider reported them, if it did and they make sense. */
  readonly usage: Omit<CallUsage, "source"> | undefined;
}

/** The provider's stream is not what it should be. */
export class MalformedStream extends Error {}

/** Longest event of a stream in bytes; a provider that sends more without an end is broken. */
const MAX_EVENT_BYTES = 1_048_576;

/** Tool calls of a reply at most (OpenAI's limit on the tools of a request); an index beyond it is no index. */
const MAX_TOOL_CALLS = 128;

/** Reads the server-sent events of a chat completion (platform.openai.com/docs/api-reference/chat-streaming). */
export function createCompletionStream(): CompletionStream {
  const decoder = new TextDecoder();
  const toolCalls: { id: string; name: string; argumentsJson: string }[] = [];
  let text = "";
  let ended: ModelReply["ended"] | undefined;
  let usage: CompletionStream["usage"];
  let unreadBytes = 0;
  let done = false;

  const parser = createParser({
    onEvent({ data }) {
      unreadBytes = 0;
      if (data === "[DONE]") {
        done = true;
        return;
      }
      const chunk = parseChunk(data);
      usage = usageOf(chunk) ?? usage;
      const choice = chunk.choices?.[0];
      if (choice === undefined) return;
      const content: unknown = choice.delta?.content;
      if (typeof content === "string") text += content;
      for (const part of choice.delta?.tool_calls ?? []) {
        // Servers that do not number their calls send each one whole.
        const index = (part.index as number | undefined) ?? toolCalls.length;
        if (!Number.isInteger(index) || index < 0 || index >= MAX_TOOL_CALLS)
          throw new MalformedStream("a tool call without a place");
        const call = toolCalls[index] ?? { id: "", name: "", argumentsJson: "" };
        toolCalls[index] = call;
        call.id ||= part.id ?? "";
        call.name += part.function?.name ?? "";
        call.argumentsJson += part.function?.arguments ?? "";
      }
      if (choice.finish_reason) ended = endOf(choice.finish_reason);
    },
  });
  return {
    push(chunk) {
      const before = text.length;
      unreadBytes += chunk.byteLength;
      parser.feed(decoder.decode(chunk, { stream: true }));
      if (unreadBytes > MAX_EVENT_BYTES) throw new MalformedStream("an event without an end");
      return text.slice(before);
    },
    get text() {
      return text;
    },
    get toolCalls() {
      return toolCalls.filter((call) => call !== undefined);
    },
    get ended() {
      return ended;
    },
    get done() {
      return done;
    },
    get usage() {
      return usage;
    },
  };
}

function parseChunk(data: string): Partial<ChatCompletionChunk> {
  let chunk: unknown;
  try {
    chunk = JSON.parse(data);
  } catch (error) {
    throw new MalformedStream("an event that is no JSON", { cause: error });
  }
  if (typeof chunk !== "object" || chunk === null) throw new MalformedStream("an event that is no object");
  if ("error" in chunk && chunk.error !== null) throw new MalformedStream("an error amid the stream");
  return chunk;
}

function usageOf({ usage }: Partial<ChatCompletionChunk>): CompletionStream["usage"] {
  if (!usage) return undefined;
  const { prompt_tokens: promptTokens, completion_tokens: completionTokens } = usage;
  const sane = [promptTokens, completionTokens].every(
    (count) => Number.isInteger(count) && count >= 0 && count <= 0x7fffffff,
  );
  if (!sane) return undefined;
  const cachedPromptTokens = partOf(promptTokens, usage.prompt_tokens_details?.cached_tokens);
  const reasoningTokens = partOf(completionTokens, usage.completion_tokens_details?.reasoning_tokens);
  return { promptTokens, completionTokens, cachedPromptTokens, reasoningTokens };
}

/** A part that a provider counts of a whole; what makes no sense is none. */
function partOf(whole: number, part: number | undefined): number {
  return Number.isInteger(part) && part !== undefined && part > 0 ? Math.min(part, whole) : 0;
}

function endOf(reason: string): ModelReply["ended"] {
  switch (reason) {
    case "length":
    case "content_filter":
    case "tool_calls":
      return reason;
    default:
      return "stop";
  }
}
