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
 * An agent's prompt: system message, as many of the history's newest messages as fit, and this turn's messages, which all
 * must be there. Undefined when system message and this turn's messages alone are more than `promptLimitTokens`.
 */
export function cutToWindow({
  system,
  history,
  current,
  tokenizer,
  promptLimitTokens,
  reader,
}: {
  system: string;
  /** Oldest first. */
  history: readonly MessageRecord[];
  /** This turn's messages, oldest first, what tools cost beside them included. */
  current: { readonly messages: readonly ModelMessage[]; readonly extraTokens?: number };
  tokenizer: Tokenizer;
  promptLimitTokens: number;
  /** The agent that reads: what others said is said to it. Absent: whatever an agent said is its own. */
  reader?: string;
}): Prompt | undefined {
  const head: ModelMessage = { role: "system", content: system };
  let tokens = tokenizer.countPrompt([head, ...current.messages]) + (current.extraTokens ?? 0);
  if (tokens > promptLimitTokens) return undefined;

  // What an empty message costs: all but its text, which the record has counted.
  const emptyTokens = tokenizer.countMessages([{ role: "user", content: "" }]);
  const costs: number[] = [];
  for (let newest = history.length - 1; newest >= 0; newest--) {
    const cost = costOf(history[newest] as MessageRecord, { emptyTokens, tokenizer, reader });
    if (tokens + cost > promptLimitTokens) break;
    tokens += cost;
    costs.push(cost);
  }
  // A window begins with what a user said: an answer without its question misleads.
  let start = history.length - costs.length;
  for (; start < history.length && history[start]?.message?.role !== Role.USER; start++) tokens -= costs.pop() ?? 0;
  const kept = history.slice(start).flatMap((record) => asModelMessage(record, reader));
  return { messages: [head, ...kept, ...current.messages], tokens };
}

function costOf(
  record: MessageRecord,
  { emptyTokens, tokenizer, reader }: { emptyTokens: number; tokenizer: Tokenizer; reader: string | undefined },
): number {
  const [message] = asModelMessage(record, reader);
  if (message === undefined) return 0;
  const name = message.role === "user" && message.name !== undefined ? tokenizer.countText(message.name) : 0;
  const text = record.tokenizer === tokenizer.name ? record.tokenCount : tokenizer.countText(message.content);
  return emptyTokens + name + text;
}

function asModelMessage({ message }: MessageRecord, reader: string | undefined): ModelMessage[] {
  switch (message?.role) {
    case Role.USER:
      return [{ role: "user", content: message.content }];
    case Role.ASSISTANT:
      return [saidBy(message.agent, { content: message.content, reader })];
    default:
      return [];
  }
}

/** What an agent said, as the reader sees it: its own answer, or another's message to it. */
export function saidBy(
  agent: string,
  { content, reader }: { content: string; reader: string | undefined },
): ModelMessage {
  if (reader === undefined || reader === agent) return { role: "assistant", content };
  return { role: "user", name: agent, content };
}
