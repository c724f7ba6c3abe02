import { Role } from "../../gen/parley/chat/v1/message_pb.js";
import type { MessageRecord } from "../../gen/parley/storage/v1/message_record_pb.js";
import type { ModelMessage } from "./model.ts";
import type { Tokenizer } from "./tokenizer.ts";

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
}): ModelMessage[] | undefined {
  const head: ModelMessage = { role: "system", content: system };
  const tail: ModelMessage = { role: "user", content: message };
  let tokensLeft = promptLimitTokens - tokenizer.countPrompt([head, tail]);
  if (tokensLeft < 0) return undefined;

  // What an empty message costs: all but its text, which the record has counted.
  const emptyTokens = tokenizer.countPrompt([{ role: "user", content: "" }]) - tokenizer.countPrompt([]);
  let start = history.length;
  for (; start > 0; start--) {
    tokensLeft -= emptyTokens + textTokens(history[start - 1] as MessageRecord, tokenizer);
    if (tokensLeft < 0) break;
  }
  // A window begins with what a user said: an answer without its question misleads.
  while (start < history.length && history[start]?.message?.role !== Role.USER) start++;
  return [head, ...history.slice(start).flatMap(asModelMessage), tail];
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
