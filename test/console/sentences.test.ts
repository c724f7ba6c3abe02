import { expect, test } from "vitest";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import {
  agoText,
  costText,
  durationText,
  endSentence,
  headroomText,
  terminationSentence,
  tokensText,
} from "../../web/src/sentences.ts";

test.each([
  [0, "0 ms"],
  [999.4, "999 ms"],
  [999.6, "1.0 s"],
  [2_549, "2.5 s"],
  [59_949, "59.9 s"],
  [59_960, "1 min 0 s"],
  [119_600, "2 min 0 s"],
  [200_000, "3 min 20 s"],
])("%d ms are told as %s", (ms, text) => {
  expect(durationText(ms)).toBe(text);
});

test.each([
  [0, "0 tokens"],
  [1, "1 token"],
  [12_345, "12,345 tokens"],
])("%d tokens are told as %s", (tokens, text) => {
  expect(tokensText(tokens)).toBe(text);
});

test.each([
  [0n, ""],
  [1n, "$0.000001"],
  [9_999n, "$0.009999"],
  [12_345n, "$0.0123"],
  [1_500_000n, "$1.50"],
])("%d micro-dollars are told as %s", (cost, text) => {
  expect(costText(cost)).toBe(text);
});

test.each([
  [[], ""],
  [[{}], ""],
  [[{ leftMicroUsd: 0n }], "Left of your budget: $0"],
  [[{ leftTokens: 1_200n }], "Left of your budget: 1,200 tokens"],
  [
    [{ leftMicroUsd: 4_980_000n, leftTokens: 9n }, { leftMicroUsd: 12_345n }, { leftTokens: 10n }],
    "Left of your budget: $0.0123, 9 tokens",
  ],
])("budgets with %o left are told as %s", (headroom, text) => {
  expect(headroomText(headroom)).toBe(text);
});

const MINUTE = 60_000;
test.each([
  // Clocks differ: what is to come is now.
  [-MINUTE, "just now"],
  [0, "just now"],
  [MINUTE, "1 min ago"],
  [59 * MINUTE, "59 min ago"],
  [60 * MINUTE, "1 h ago"],
  [47 * 60 * MINUTE, "47 h ago"],
  [48 * 60 * MINUTE, "2 days ago"],
])("%d ms ago is told as %s", (ago, text) => {
  const now = Date.UTC(2026, 0, 31);
  expect(agoText(now - ago, now)).toBe(text);
});

const EXPECTED_ENDS = [FinishReason.UNSPECIFIED, FinishReason.STOP, FinishReason.TERMINATED];

test("every end that a person would not expect is a sentence", () => {
  const reasons = Object.values(FinishReason).filter((reason) => typeof reason === "number");
  const silent = reasons.filter((reason) => endSentence(reason) === "");
  expect(silent).toEqual(EXPECTED_ENDS);
  for (const reason of reasons.filter((each) => !silent.includes(each))) {
    expect(endSentence(reason)).toMatch(/^[A-Z].*\.$/);
  }
});

test.each([
  ["", ""],
  ["TextMentionTermination", "The team is done: its closing word was said."],
  [
    "MaxMessageTermination & SourceMatchTermination",
    "The team is done: its maximum of messages was reached, and whoever has the last word has spoken.",
  ],
  ["NewTermination", "The team is done: NewTermination was met."],
])("the condition %s is told in words", (termination, sentence) => {
  expect(terminationSentence(termination)).toBe(sentence);
});
