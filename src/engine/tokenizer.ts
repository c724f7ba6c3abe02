import { countTokens as countCl100k } from "gpt-tokenizer/encoding/cl100k_base";
import { countTokens as countO200k } from "gpt-tokenizer/encoding/o200k_base";
import type { ModelMessage } from "./model.ts";

/** Counts tokens as a model's provider will. */
export interface Tokenizer {
  /** Name of the encoding; counts of different names must not be mixed. */
  readonly name: string;
  countText(text: string): number;
  /** Tokens of messages in a prompt, what each costs beside its text included. */
  countMessages(messages: readonly ModelMessage[]): number;
  /** Tokens of a whole prompt. */
  countPrompt(messages: readonly ModelMessage[]): number;
}

/** Tokens that each message costs beside its text (OpenAI cookbook, "How to count tokens with tiktoken"). */
export const MESSAGE_OVERHEAD_TOKENS = 4;

/** Tokens that every reply is primed with (same source). */
export const REPLY_PRIMING_TOKENS = 3;

/**
 * The tokenizer of a model. Where it is unknown, text is counted as its UTF-8 bytes and a message as 16 more: no
 * tokenizer makes more tokens than that, so that a bound holds (DESIGN §6).
 */
export function tokenizerFor(model: string): Tokenizer {
  if (/^(gpt-4o|gpt-4\.|gpt-5|chatgpt|o[1-9])/.test(model)) return o200k;
  if (/^(gpt-4|gpt-3\.5)/.test(model)) return cl100k;
  return utf8Bytes;
}

type Count = (text: string, options: { disallowedSpecial: Set<string> }) => number;

/** Text of users that looks like a special token, such as <|endoftext|>, is text. */
const nothingSpecial = { disallowedSpecial: new Set<string>() };

const cl100k = bytePairTokenizer("cl100k_base", countCl100k as Count);
const o200k = bytePairTokenizer("o200k_base", countO200k as Count);
const utf8Bytes = tokenizer("utf8-bytes", (text) => Buffer.byteLength(text), 16);

function bytePairTokenizer(name: string, count: Count): Tokenizer {
  const countText = (text: string): number => {
    if (!/\s{512}|\S{512}/.test(text)) return count(text, nothingSpecial);
    // The encoder's time grows with the square of a run's length: 64 KiB of one letter take ten seconds, in which nothing
    // else is done. In pieces they make a token more per piece at most, and no fewer.
    const pieces = text.match(/[\s\S]{1,256}/gu) ?? [];
    return pieces.reduce((sum, piece) => sum + count(piece, nothingSpecial), 0);
  };
  return tokenizer(name, remembered(countText), MESSAGE_OVERHEAD_TOKENS);
}

/** Texts that are remembered, in characters of all together: some hundred turns. */
const REMEMBERED_CHARACTERS = 500_000;

/** What a text that is remembered costs beside its characters, in characters. */
const REMEMBERED_OVERHEAD = 50;

/**
 * Counts a text once: an agent's system message is counted in each turn, a user's message at its admission, for its
 * prompt and for the history. Of six counts in a turn two are left, which spares 3 % of its processor time.
 *
 * All older ones are forgotten at once, but for those in use: a Map that loses its oldest entry with each new one walks over
 * the places of all that it has lost, and after 50,000 short texts that costs ten times what their counts do.
 */
function remembered(count: (text: string) => number): (text: string) => number {
  let recent = new Map<string, number>();
  let older = recent;
  let characters = 0;
  return (text) => {
    let tokens = recent.get(text);
    if (tokens !== undefined) return tokens;
    tokens = older.get(text) ?? count(text);
    const weight = text.length + REMEMBERED_OVERHEAD;
    if (weight > REMEMBERED_CHARACTERS / 2) return tokens;
    characters += weight;
    if (characters > REMEMBERED_CHARACTERS / 2) {
      older = recent;
      recent = new Map();
      characters = weight;
    }
    recent.set(text, tokens);
    return tokens;
  };
}

function tokenizer(name: string, countText: (text: string) => number, messageTokens: number): Tokenizer {
  const countMessages = (messages: readonly ModelMessage[]): number =>
    messages.reduce((sum, message) => sum + messageTokens + countText(textOf(message)), 0);
  return {
    name,
    countText,
    countMessages,
    countPrompt: (messages) => REPLY_PRIMING_TOKENS + countMessages(messages),
  };
}

/** All of a message that a model reads. */
function textOf(message: ModelMessage): string {
  if (message.role === "user" && message.name !== undefined) return `${message.name}${message.content}`;
  if (message.role !== "assistant" || message.toolCalls === undefined) return message.content;
  return message.content + message.toolCalls.map((call) => `${call.name}${call.argumentsJson}`).join("");
}
