import { countTokens as countCl100k } from "gpt-tokenizer/encoding/cl100k_base";
import { countTokens as countO200k } from "gpt-tokenizer/encoding/o200k_base";
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

test.each([
  ["gpt-4", countCl100k],
  ["gpt-4o", countO200k],
] as const)(
  "%s: a long run of one kind is counted in linear time, never too low and hardly too high",
  (model, count) => {
    const tokenizer = tokenizerFor(model);
    for (const run of ["x", " ", "語", "-", "🦊", "aGVsbG8gd29ybGQ", "\n"]) {
      const text = run.repeat(Math.ceil(3_000 / run.length));
      const whole = count(text);
      expect(tokenizer.countText(text)).toBeGreaterThanOrEqual(whole);
      expect(tokenizer.countText(text)).toBeLessThanOrEqual(whole + 2 * Math.ceil(text.length / 256));
      // The encoder alone would take minutes.
      expect(tokenizer.countText(run.repeat(200_000))).toBeGreaterThan(whole);
    }
  },
);

test("counts of many short texts, which are remembered, stay as quick as the first ones", () => {
  const { countText } = tokenizerFor("gpt-4");
  // Of ten characters each, so that as many as possible are remembered and forgotten.
  const texts = (from: number): string[] => Array.from({ length: 20_000 }, (_, i) => `text ${10_000 + from + i}`);
  const cpuMs = (each: readonly string[]): number => {
    const start = process.cpuUsage();
    for (const text of each) countText(text);
    const { user } = process.cpuUsage(start);
    return user / 1_000;
  };
  const laps = Array.from({ length: 10 }, (_, lap) => cpuMs(texts(lap * 20_000)));
  const [, second = 0] = laps;
  expect(Math.max(...laps.slice(-4))).toBeLessThan(4 * second);
});
