import { expect, test } from "vitest";
import type { ModelMessage } from "../../src/engine/model.ts";
import { MESSAGE_OVERHEAD_TOKENS, REPLY_PRIMING_TOKENS, tokenizerFor } from "../../src/engine/tokenizer.ts";

test.each([
  ["gpt-4", "cl100k_base"],
  ["gpt-4-0613", "cl100k_base"],
  ["gpt-4-turbo", "cl100k_base"],
  ["gpt-3.5-turbo", "cl100k_base"],
  ["gpt-4o", "o200k_base"],
  ["gpt-4o-mini", "o200k_base"],
  ["gpt-4.1", "o200k_base"],
  ["gpt-5", "o200k_base"],
  ["o3-mini", "o200k_base"],
  ["llama-3-70b", "utf8-bytes"],
  ["my-gpt-4", "utf8-bytes"],
  ["", "utf8-bytes"],
])("%j is counted by %s", (model, name) => {
  expect(tokenizerFor(model).name).toBe(name);
});

// Counts as tiktoken makes them.
test.each([
  ["gpt-4", "tiktoken is great!", 6],
  ["gpt-4", "antidisestablishmentarianism", 6],
  ["gpt-4", "2 + 2 = 4", 7],
  ["gpt-4", "お誕生日おめでとう", 9],
  ["gpt-4o", "お誕生日おめでとう", 8],
  ["gpt-4", "", 0],
  ["llama-3-70b", "naïve 👍", 11],
])("%s: %j is %d tokens", (model, text, tokens) => {
  expect(tokenizerFor(model).countText(text)).toBe(tokens);
});

test.each(["gpt-4", "gpt-4o"])("%s: a user's text that looks like a special token is text", (model) => {
  expect(tokenizerFor(model).countText("<|endoftext|>")).toBeGreaterThan(1);
});

test("a prompt costs its texts, an overhead per message, and the reply's priming", () => {
  const tokenizer = tokenizerFor("gpt-4");
  expect(tokenizer.countPrompt([])).toBe(REPLY_PRIMING_TOKENS);
  const messages: ModelMessage[] = [
    { role: "system", content: "tiktoken is great!" },
    { role: "user", content: "2 + 2 = 4" },
  ];
  expect(tokenizer.countPrompt(messages)).toBe(6 + 7 + 2 * MESSAGE_OVERHEAD_TOKENS + REPLY_PRIMING_TOKENS);
});

test("tool calls in a prompt are counted too", () => {
  const tokenizer = tokenizerFor("gpt-4");
  const bare = tokenizer.countPrompt([{ role: "assistant", content: "" }]);
  const toolCalls = [{ id: "c1", name: "search", argumentsJson: '{"query":"weather"}' }];
  expect(tokenizer.countPrompt([{ role: "assistant", content: "", toolCalls }])).toBeGreaterThan(bare + 5);
});

test("an unknown model's message costs 16 more than its bytes", () => {
  const tokenizer = tokenizerFor("llama-3-70b");
  const [none, one] = [tokenizer.countPrompt([]), tokenizer.countPrompt([{ role: "user", content: "four" }])];
  expect(one - none).toBe(4 + 16);
});
