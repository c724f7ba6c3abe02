import fc from "fast-check";
import { expect, test } from "vitest";
import { createCompletionStream, MalformedStream } from "../../src/providers/completion-stream.ts";
import { DONE, event, STOP, textEvent, USAGE } from "./model-server.ts";

const CALL_PARTS = [
  { index: 0, id: "c1", function: { name: "look", arguments: "" } },
  { index: 0, function: { arguments: '{"a":' } },
  { index: 1, id: "c2", function: { name: "find", arguments: "{}" } },
  { index: 0, function: { arguments: "1}" } },
];

const BODY = Buffer.from(
  [
    ": a comment\n\n",
    textEvent("Grüße, "),
    textEvent("世界 👩‍🚀\n\n"),
    ...CALL_PARTS.map((part) => toolEvent(part)),
    textEvent("data: [DONE]"),
    STOP,
    USAGE,
    DONE,
  ].join(""),
);

test("a stream says the same wherever its bytes are cut", () => {
  const cuts = fc.uniqueArray(fc.integer({ min: 1, max: BODY.byteLength - 1 }), { maxLength: 40 });
  fc.assert(
    fc.property(cuts, (unordered) => {
      const stream = createCompletionStream();
      const places = [0, ...unordered.sort((a, b) => a - b), BODY.byteLength];
      const pieces = places.slice(1).map((end, index) => stream.push(BODY.subarray(places[index], end)));
      expect(pieces.join("")).toBe("Grüße, 世界 👩‍🚀\n\ndata: [DONE]");
      expect(stream).toMatchObject({
        text: pieces.join(""),
        ended: "stop",
        done: true,
        usage: { promptTokens: 11, completionTokens: 3 },
        toolCalls: [
          { id: "c1", name: "look", argumentsJson: '{"a":1}' },
          { id: "c2", name: "find", argumentsJson: "{}" },
        ],
      });
    }),
    { numRuns: 200 },
  );
});

test.each(["\r\n", "\r"])("lines may end with %j", (lineEnd) => {
  const stream = createCompletionStream();
  stream.push(Buffer.from((textEvent("Hi") + STOP + DONE).replaceAll("\n", lineEnd)));
  expect(stream).toMatchObject({ text: "Hi", ended: "stop", done: true });
});

test("a stream that is cut before its reply ends has no end", () => {
  const stream = createCompletionStream();
  stream.push(Buffer.from(textEvent("Half a sen") + DONE));
  expect(stream.ended).toBeUndefined();
});

test("many events in one piece are no long event", () => {
  const stream = createCompletionStream();
  const text = "word ".repeat(1_000);
  const events = Array.from({ length: 300 }, () => textEvent(text)).join("");
  expect(Buffer.byteLength(events)).toBeGreaterThan(1_048_576);
  expect(stream.push(Buffer.from(events))).toBe(text.repeat(300));
});

test("tool calls that are not numbered are calls of their own", () => {
  const stream = createCompletionStream();
  for (const id of ["c1", "c2"]) {
    stream.push(Buffer.from(toolEvent({ id, function: { name: "look", arguments: "{}" } })));
  }
  expect(stream.toolCalls.map(({ id }) => id)).toEqual(["c1", "c2"]);
});

test.each([
  ["usage of null", { usage: null }],
  ["an error of null", { error: null }],
  ["no choices", {}],
  ["a choice without a delta", { choices: [{ index: 0, finish_reason: null }] }],
  ["content of null", { choices: [{ index: 0, delta: { content: null }, finish_reason: null }] }],
  ["content that is no text", { choices: [{ index: 0, delta: { content: [{ text: "?" }] }, finish_reason: null }] }],
])("an event with %s says nothing", (_, chunk) => {
  const stream = createCompletionStream();
  expect(stream.push(Buffer.from(event(chunk)))).toBe("");
  expect(stream).toMatchObject({ ended: undefined, usage: undefined, toolCalls: [] });
});

test.each([
  ["no JSON", "{this is no JSON"],
  ["no object", "null"],
  ["an error", { error: { message: "overloaded" } }],
  ["a tool call at a negative place", toolChunk({ index: -1 })],
  ["a tool call at half a place", toolChunk({ index: 0.5 })],
  ["a tool call beyond all bounds", toolChunk({ index: 4_000_000_000 })],
])("an event that is %s is malformed", (_, chunk) => {
  expect(() => createCompletionStream().push(Buffer.from(event(chunk)))).toThrow(MalformedStream);
});

test("an event that does not end is malformed after 1 MiB", () => {
  const stream = createCompletionStream();
  const piece = Buffer.alloc(65_536, "x");
  for (let count = 0; count < 16; count++) stream.push(piece);
  expect(() => stream.push(piece)).toThrow(MalformedStream);
});

function toolChunk(part: unknown): unknown {
  return { choices: [{ index: 0, delta: { tool_calls: [part] }, finish_reason: null }] };
}

function toolEvent(part: unknown): string {
  return event(toolChunk(part));
}
