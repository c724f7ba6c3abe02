import { Role } from "../../gen/parley/chat/v1/message_pb.js";
import type { MessageRecord } from "../../gen/parley/storage/v1/message_record_pb.js";
import type { ModelMessage } from "./model.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** A prompt and what it costs. */
export interface Prompt {
  readonly messages: readonly ModelMessage[];
  readonly tokens: number;
}

/**
 * The prompt of a turn: system message, as many of the history's newest messages as fit, the user's message.
 * Undefined when system message and user's message alone are more than `promptLimitTokens`.
 */
export function cutToWindow({
  system,
  history,
  message,
  tokenizer,
  promptLimitTokens,
}: {
  system: string;
  /** Oldest first. */
  history: readonly MessageRecord[];
  message: string;
  tokenizer: Tokenizer;
  promptLimitTokens: number;
}): Prompt | undefined {
  const head: ModelMessage = { role: "system", content: system };
  const tail: ModelMessage = { role: "user", content: message };
  let tokens = tokenizer.countPrompt([head, tail]);
  if (tokens > promptLimitTokens) return undefined;

  // What an empty message costs: all but its text, which the record has counted.
  const emptyTokens = tokenizer.countMessages([{ role: "user", content: "" }]);
  const costs: number[] = [];
  for (let newest = history.length - 1; newest >= 0; newest--) {
    const cost = emptyTokens + textTokens(history[newest] as MessageRecord, tokenizer);
    if (tokens + cost > promptLimitTokens) break;
    tokens += cost;
    costs.push(cost);
  }
  // A window begins with what a user said: an answer without its question misleads.
  let start = history.length - costs.length;
  for (; start < history.length && history[start]?.message?.role !== Role.USER; start++) tokens -= costs.pop() ?? 0;
  return { messages: [head, ...history.slice(start).flatMap(asModelMessage), tail], tokens };
}

function textTokens(record: MessageRecord, tokenizer: Tokenizer): number {
  if (record.tokenizer === tokenizer.name) return record.tokenCount;
  return tokenizer.countText(record.message?.content ?? "");
}

function asModelMessage({ message }: MessageRecord): ModelMessage[] {
  switch (message?.role) {
    case Role.USER:
      return [{ role: "user", content: message.content }];
    case Role.ASSISTANT:
      return [{ role: "assistant", content: message.content }];
    default:
      return [];
  }
}
