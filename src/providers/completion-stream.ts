import { createParser } from "eventsource-parser";
import type { ChatCompletionChunk } from "openai/resources/chat/completions";
import type { ModelReply, ModelToolCall } from "../engine/model.ts";

/** What a streamed completion has said so far. */
export interface CompletionStream {
  /** Takes a piece of the body; returns the text in it. Throws {@link MalformedStream}. */
  push(chunk: Uint8Array): string;
  /** All text so far. */
  readonly text: string;
  readonly toolCalls: readonly ModelToolCall[];
  /** Why the model ended its reply; undefined: it has not, so that a body that ends here was cut. */
  readonly ended: ModelReply["ended"] | undefined;
  /** Counts as the provider reported them, if it did and they make sense. */
  readonly usage: { readonly promptTokens: number; readonly completionTokens: number } | undefined;
}

/** The provider's stream is not what it should be. */
export class MalformedStream extends Error {}

/** Longest event of a stream in characters; a provider that sends more without an end is broken. */
const MAX_EVENT_CHARACTERS = 1_048_576;

/** Reads the server-sent events of a chat completion (platform.openai.com/docs/api-reference/chat-streaming). */
export function createCompletionStream(): CompletionStream {
  const decoder = new TextDecoder();
  const toolCalls: { id: string; name: string; argumentsJson: string }[] = [];
  let text = "";
  let ended: ModelReply["ended"] | undefined;
  let usage: CompletionStream["usage"];
  let unread = 0;

  const parser = createParser({
    onEvent({ data }) {
      unread = 0;
      if (data === "[DONE]") return;
      const chunk = parseChunk(data);
      usage = usageOf(chunk) ?? usage;
      const choice = chunk.choices?.[0];
      if (choice === undefined) return;
      text += choice.delta?.content ?? "";
      for (const part of choice.delta?.tool_calls ?? []) {
        const call = toolCalls[part.index] ?? { id: "", name: "", argumentsJson: "" };
        toolCalls[part.index] = call;
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
      unread += chunk.byteLength;
      if (unread > MAX_EVENT_CHARACTERS) throw new MalformedStream("an event without an end");
      parser.feed(decoder.decode(chunk, { stream: true }));
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
  if (typeof chunk !== "object" || chunk === null || "error" in chunk)
    throw new MalformedStream("an error amid the stream");
  return chunk;
}

function usageOf({ usage }: Partial<ChatCompletionChunk>): CompletionStream["usage"] {
  if (!usage) return undefined;
  const { prompt_tokens: promptTokens, completion_tokens: completionTokens } = usage;
  const sane = [promptTokens, completionTokens].every(
    (count) => Number.isInteger(count) && count >= 0 && count <= 0x7fffffff,
  );
  return sane ? { promptTokens, completionTokens } : undefined;
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
