import { create } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, test } from "vitest";
import { Role } from "../../gen/parley/chat/v1/message_pb.js";
import { type MessageRecord, MessageRecordSchema } from "../../gen/parley/storage/v1/message_record_pb.js";
import { cutToWindow } from "../../src/engine/context-window.ts";
import type { ModelMessage } from "../../src/engine/model.ts";
import { MESSAGE_OVERHEAD_TOKENS, type Tokenizer, tokenizerFor } from "../../src/engine/tokenizer.ts";

const tokenizer = tokenizerFor("gpt-4");
const SYSTEM = "You are a helpful assistant.";
const MESSAGE = "And then?";

/** What system message and user's message cost alone. */
const ALONE_TOKENS = tokenizer.countPrompt([
  { role: "system", content: SYSTEM },
  { role: "user", content: MESSAGE },
]);

test("a history that fits is all there, between system message and user's message", () => {
  const messages = cut(ALONE_TOKENS + 1_000, [
    user("Tell me a story"),
    assistant("Once upon a time"),
    user("Go on"),
    assistant("there was"),
  ]);
  expect(messages).toEqual([
    { role: "system", content: SYSTEM },
    { role: "user", content: "Tell me a story" },
    { role: "assistant", content: "Once upon a time" },
    { role: "user", content: "Go on" },
    { role: "assistant", content: "there was" },
    { role: "user", content: MESSAGE },
  ]);
});

test("the limit is met to the token: what costs the limit fits, one less cuts the oldest exchange", () => {
  const history = [user("one"), assistant("two"), user("three"), assistant("four")];
  const all = ALONE_TOKENS + costOf(history);
  expect(cut(all, history)).toHaveLength(6);
  expect(contents(cut(all - 1, history))).toEqual([SYSTEM, "three", "four", MESSAGE]);
});

test("the newest messages stay, and a window begins with what a user said", () => {
  const history = [user("old question"), assistant("old answer"), user("new question"), assistant("new answer")];
  // Room for the old answer too, without its question.
  const limit = ALONE_TOKENS + costOf(history.slice(1));
  expect(contents(cut(limit, history))).toEqual([SYSTEM, "new question", "new answer", MESSAGE]);
});

test("an answer whose question does not fit goes too", () => {
  const history = [user("q".repeat(4_000)), assistant("short answer")];
  expect(contents(cut(ALONE_TOKENS + 100, history))).toEqual([SYSTEM, MESSAGE]);
});

test("a message that is too large ends the window: nothing older than it is kept", () => {
  const history = [
    user("small"),
    assistant("small"),
    user("x ".repeat(5_000)),
    assistant("a"),
    user("b"),
    assistant("c"),
  ];
  expect(contents(cut(ALONE_TOKENS + 200, history))).toEqual([SYSTEM, "b", "c", MESSAGE]);
});

test("a history that was cut by the store, so that it begins with an answer, begins with a question here", () => {
  const history = [assistant("cut off"), user("question"), assistant("answer")];
  expect(contents(cut(ALONE_TOKENS + 1_000, history))).toEqual([SYSTEM, "question", "answer", MESSAGE]);
});

test("system message and user's message that fit exactly leave no history; one token less is nothing at all", () => {
  expect(contents(cut(ALONE_TOKENS, [user("a"), assistant("b")]))).toEqual([SYSTEM, MESSAGE]);
  expect(cut(ALONE_TOKENS - 1, [])).toBeUndefined();
  expect(cut(0, [])).toBeUndefined();
  expect(cut(-500, [])).toBeUndefined();
});

test("a record's own count is used where the same tokenizer made it: no text is counted twice", () => {
  const { counting, counted } = countingTokenizer();
  const history = [user("stored question"), assistant("stored answer")];
  cutToWindow({ system: SYSTEM, history, message: MESSAGE, tokenizer: counting, promptLimitTokens: 1_000 });
  expect(counted).not.toContain("stored question");
  expect(counted).not.toContain("stored answer");
});

test("a record that another tokenizer counted is counted again", () => {
  const history = [{ ...user("word ".repeat(100)), tokenizer: "another", tokenCount: 1 }, assistant("answer")];
  expect(contents(cut(ALONE_TOKENS + 50, history))).toEqual([SYSTEM, MESSAGE]);
});

test("a window of a long history counts no more messages than it holds and one", () => {
  const { counting, counted } = countingTokenizer();
  const history = Array.from({ length: 5_000 }, (_, index) => {
    return { ...(index % 2 === 0 ? user(`q${index}`) : assistant(`a${index}`)), tokenizer: "another" };
  });
  const window = cutToWindow({
    system: SYSTEM,
    history,
    message: MESSAGE,
    tokenizer: counting,
    promptLimitTokens: 200,
  });
  const held = (window?.messages.length ?? 0) - 2;
  expect(held).toBeGreaterThan(5);
  expect(counted.filter((text) => /^[qa]\d/.test(text)).length).toBeLessThanOrEqual(held + 2);
});

test("whatever the history and the limit, the window is a suffix that begins with a user, fits, and could not be longer", () => {
  const message = fc.tuple(fc.constantFrom(user, assistant), fc.string({ maxLength: 60, unit: "grapheme" }));
  fc.assert(
    fc.property(fc.array(message, { maxLength: 20 }), fc.integer({ min: 0, max: 400 }), (drawn, room) => {
      const history = drawn.map(([make, content], index) => make(`${index}: ${content}`));
      const limit = ALONE_TOKENS + room;
      const window = cut(limit, history) ?? expect.fail("system message and user's message fit");
      expect(tokenizer.countPrompt(window)).toBeLessThanOrEqual(limit);
      const kept = window.slice(1, -1);
      const start = history.length - kept.length;
      expect(kept.map(({ content }) => content)).toEqual(history.slice(start).map((record) => record.message?.content));
      if (kept.length > 0) expect(kept[0]?.role).toBe("user");
      // The next earlier place where a window could begin costs too much.
      const earlier = history.findLastIndex((record, index) => index < start && record.message?.role === Role.USER);
      if (earlier >= 0) expect(ALONE_TOKENS + costOf(history.slice(earlier))).toBeGreaterThan(limit);
    }),
    { numRuns: 300 },
  );
});

/** The window's messages; what it says that they cost is what they cost. */
function cut(promptLimitTokens: number, history: readonly MessageRecord[]): readonly ModelMessage[] | undefined {
  const prompt = cutToWindow({ system: SYSTEM, history, message: MESSAGE, tokenizer, promptLimitTokens });
  if (prompt !== undefined) expect(prompt.tokens).toBe(tokenizer.countPrompt(prompt.messages));
  return prompt?.messages;
}

function contents(messages: readonly ModelMessage[] | undefined): string[] | undefined {
  return messages?.map(({ content }) => content);
}

function user(content: string): MessageRecord {
  return record(Role.USER, content);
}

function assistant(content: string): MessageRecord {
  return record(Role.ASSISTANT, content);
}

function record(role: Role, content: string): MessageRecord {
  return create(MessageRecordSchema, {
    schemaVersion: 1,
    message: { role, content },
    tokenCount: tokenizer.countText(content),
    tokenizer: tokenizer.name,
  });
}

function costOf(history: readonly MessageRecord[]): number {
  return history.reduce((sum, { tokenCount }) => sum + tokenCount + MESSAGE_OVERHEAD_TOKENS, 0);
}

/** The tokenizer, keeping the texts that it was asked to count. */
function countingTokenizer(): { counting: Tokenizer; counted: string[] } {
  const counted: string[] = [];
  const counting: Tokenizer = {
    name: tokenizer.name,
    countText(text) {
      counted.push(text);
      return tokenizer.countText(text);
    },
    countMessages: tokenizer.countMessages,
    countPrompt(messages) {
      counted.push(...messages.map(({ content }) => content));
      return tokenizer.countPrompt(messages);
    },
  };
  return { counting, counted };
}
