import { create } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, test } from "vitest";
import { Role } from "../../gen/parley/chat/v1/message_pb.js";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { MessageRecordSchema } from "../../gen/parley/storage/v1/message_record_pb.js";
import { type ModelAttempt, ModelCallFailure, type ModelReply, type ModelRequest } from "../../src/engine/model.ts";
import { ANSWER_RESERVE_TOKENS, runSingleTeam } from "../../src/engine/single-team.ts";
import type { TeamDefinition } from "../../src/engine/team.ts";
import { stripTermination } from "../../src/engine/termination-filter.ts";
import { tokenizerFor } from "../../src/engine/tokenizer.ts";
import type { TurnEvent, TurnInput } from "../../src/engine/turn.ts";
import { Failure } from "../../src/failure.ts";
import { withAttempts } from "../../src/providers/attempt-provider.ts";

const TEAM: TeamDefinition = {
  name: "assistant",
  kind: "single",
  agents: [{ name: "assistant", systemMessage: "You are helpful.", model: "gpt-4", temperature: 0.3 }],
  maxRounds: 3,
  terminationText: "TERMINATE",
  callTimeoutMs: 120_000,
  historyMessages: 100,
  contextWindowTokens: 8_192,
};

const USAGE = { promptTokens: 20, completionTokens: 5, source: UsageSource.PROVIDER };

test.each([
  ["without TERMINATE", "Hello there.", FinishReason.STOP],
  ["with TERMINATE", "Hello there. TERMINATE", FinishReason.TERMINATED],
])("a reply %s costs one model call", async (_, text, finishReason) => {
  const turn = await run({ script: [reply(text)] });
  expect(turn.requests).toHaveLength(1);
  expect(turn.end.finishReason).toBe(finishReason);
  expect(turn.content).toBe("Hello there.");
});

test("events come in order: the agent, its text, its message, the usage", async () => {
  const turn = await run({ script: [reply("Hello there. TERM", "INATE")] });
  expect(turn.events).toEqual([
    { case: "agentStarted", value: { agent: "assistant" } },
    { case: "textDelta", value: { agent: "assistant", text: "Hello there." } },
    { case: "messageCompleted", value: { agent: "assistant", content: "Hello there.", messageId: "m1" } },
    {
      case: "usageRecorded",
      value: {
        agent: "assistant",
        model: "gpt-4",
        tokenUsage: { promptTokens: 20, completionTokens: 5, totalTokens: 25 },
        usageSource: UsageSource.PROVIDER,
      },
    },
  ]);
  expect(turn.end.termination).toBe("TextMentionTermination");
});

test("the deltas put together are the message, however the model cuts its text", async () => {
  const piece = fc.constantFrom("TERMINATE", "TERM", "INATE", " ", "\n", "word", ".");
  await fc.assert(
    fc.asyncProperty(fc.array(piece, { minLength: 1, maxLength: 10 }), async (pieces) => {
      const turn = await run({ script: [reply(...pieces)] });
      const expected = stripTermination(pieces.join(""), "TERMINATE");
      expect(turn.deltas.join("")).toBe(expected);
      expect(turn.content).toBe(expected);
      expect(turn.deltas).not.toContain("");
    }),
    { numRuns: 100 },
  );
});

test("the model gets system message, history and message, the team's temperature and time, and the rest of the tokens", async () => {
  const history = [record(Role.USER, "I am Ada"), record(Role.ASSISTANT, "Hello Ada")];
  const turn = await run({ script: [reply("Ada.")], history, message: "Who am I?", maxTokens: 4_000 });
  const [request] = turn.requests;
  expect(request).toMatchObject({ model: "gpt-4", temperature: 0.3, timeoutMs: 120_000 });
  expect(request?.messages).toEqual([
    { role: "system", content: "You are helpful." },
    { role: "user", content: "I am Ada" },
    { role: "assistant", content: "Hello Ada" },
    { role: "user", content: "Who am I?" },
  ]);
  expect(request?.maxOutputTokens).toBe(4_000 - tokenizerFor("gpt-4").countPrompt(request?.messages ?? []));
});

test("a long history leaves 500 tokens for the answer", async () => {
  const history = Array.from({ length: 200 }, (_, index) =>
    record(index % 2 === 0 ? Role.USER : Role.ASSISTANT, "word ".repeat(20)),
  );
  const turn = await run({ script: [reply("ok")], history, maxTokens: 2_000 });
  const { messages = [], maxOutputTokens = 0 } = turn.requests[0] ?? {};
  expect(messages.length).toBeGreaterThan(10);
  expect(messages.length).toBeLessThan(202);
  expect(maxOutputTokens).toBeGreaterThanOrEqual(ANSWER_RESERVE_TOKENS);
});

test("a message that does not fit alone is refused before any call", async () => {
  const turn = run({ script: [], message: "word ".repeat(4_000) });
  await expect(turn).rejects.toMatchObject({ reason: "TURN_TOKEN_BUDGET" });
});

test.each([
  ["length", FinishReason.TOKEN_BUDGET],
  ["content_filter", FinishReason.CONTENT_FILTER],
] as const)("a reply that ends by %s keeps its partial text", async (ended, finishReason) => {
  const turn = await run({ script: [{ ...reply("Half a sen"), ended }] });
  expect(turn.end.finishReason).toBe(finishReason);
  expect(turn.content).toBe("Half a sen");
});

test("an empty reply is an empty message", async () => {
  const turn = await run({ script: [reply()] });
  expect(turn.end.finishReason).toBe(FinishReason.STOP);
  expect(turn.content).toBe("");
  expect(turn.deltas).toEqual([]);
});

test("a tool call that the model makes up is answered, and brings one more model call", async () => {
  const asking: Scripted = { ...reply("Let me look. "), toolCalls: [CALL], ended: "tool_calls" };
  const turn = await run({ script: [asking, reply("I cannot.")] });
  expect(turn.requests).toHaveLength(2);
  expect(turn.requests[1]?.messages.slice(2)).toEqual([
    { role: "assistant", content: "Let me look. ", toolCalls: [CALL] },
    { role: "tool", toolCallId: "c1", content: expect.stringContaining("no tool") },
  ]);
  expect(turn.end.finishReason).toBe(FinishReason.STOP);
  expect(turn.content).toBe("I cannot.");
});

test("a model that calls tools for ever is stopped after the team's rounds", async () => {
  const asking: Scripted = { ...reply(), toolCalls: [CALL], ended: "tool_calls" };
  const turn = await run({ script: [asking, asking, asking, asking] });
  expect(turn.requests).toHaveLength(3);
  expect(turn.end.finishReason).toBe(FinishReason.MAX_ROUNDS);
});

test("a turn whose tokens are used up makes no further call", async () => {
  const usage = { ...USAGE, promptTokens: 900, completionTokens: 200 };
  const asking: Scripted = { ...reply("Wait."), toolCalls: [CALL], ended: "tool_calls", usage };
  const turn = await run({ script: [asking, reply("never")], maxTokens: 1_500 });
  expect(turn.requests).toHaveLength(1);
  expect(turn.end.finishReason).toBe(FinishReason.TOKEN_BUDGET);
});

test("a call that fails is thrown, its usage recorded first", async () => {
  const failure = new ModelCallFailure("MODEL_UNAVAILABLE", { model: "gpt-4", usage: USAGE });
  const events: TurnEvent[] = [];
  await expect(run({ script: [{ ...reply("Half"), failure }], events })).rejects.toBe(failure);
  expect(events.map((event) => event.case)).toEqual(["agentStarted", "textDelta", "usageRecorded"]);
});

test("each attempt of a call is recorded: what failed before the reply's text, what answered after the message", async () => {
  const failed = (promptTokens: number): ModelAttempt => ({
    model: "gpt-4-elsewhere",
    outcome: "failed",
    usage: { promptTokens, completionTokens: 0, source: UsageSource.TOKENIZER_ESTIMATE },
  });
  const turn = await run({ script: [{ ...reply("Hello."), failedBefore: [failed(0), failed(21)] }] });
  expect(turn.events.map((event) => event.case)).toEqual([
    "agentStarted",
    "usageRecorded",
    "usageRecorded",
    "textDelta",
    "messageCompleted",
    "usageRecorded",
  ]);
  expect(turn.events[2]).toEqual({
    case: "usageRecorded",
    value: {
      agent: "assistant",
      model: "gpt-4-elsewhere",
      tokenUsage: { promptTokens: 21, completionTokens: 0, totalTokens: 21 },
      usageSource: UsageSource.TOKENIZER_ESTIMATE,
    },
  });
});

test("tokens of attempts that failed count against the turn's", async () => {
  const usage = { promptTokens: 700, completionTokens: 0, source: UsageSource.TOKENIZER_ESTIMATE };
  const asking: Scripted = { ...reply(), toolCalls: [CALL], ended: "tool_calls" };
  const failedBefore: ModelAttempt[] = [{ model: "gpt-4", outcome: "failed", usage }];
  const without = await run({ script: [asking, reply("Done.")], maxTokens: 1_200 });
  expect(without.requests).toHaveLength(2);
  const turn = await run({ script: [{ ...asking, failedBefore }, reply("never")], maxTokens: 1_200 });
  expect(turn.requests).toHaveLength(1);
  expect(turn.end.finishReason).toBe(FinishReason.TOKEN_BUDGET);
});

test("all attempts of a call together may use what is left of the turn's tokens", async () => {
  const usage = { ...USAGE, promptTokens: 300, completionTokens: 100 };
  const asking: Scripted = { ...reply(), toolCalls: [CALL], ended: "tool_calls", usage };
  const turn = await run({ script: [asking, reply("Done.")], maxTokens: 2_000 });
  expect(turn.requests.map(({ maxTotalTokens }) => maxTotalTokens)).toEqual([2_000, 1_600]);
});

test("a call that was never made has no usage", async () => {
  const events: TurnEvent[] = [];
  const failure = new Failure("MODEL_UNAVAILABLE");
  await expect(run({ script: [{ ...reply(), failure }], events })).rejects.toBe(failure);
  expect(events.map((event) => event.case)).toEqual(["agentStarted"]);
});

test("a turn that is stopped amid its reply keeps what was said, held-back text included, and is CANCELLED", async () => {
  const stop = new AbortController();
  const failure = new ModelCallFailure("CALL_CANCELLED", { model: "gpt-4", usage: USAGE });
  const turn = await run({ script: [{ ...reply("Once upon a TERM"), failure, before: () => stop.abort() }], stop });
  expect(turn.end.finishReason).toBe(FinishReason.CANCELLED);
  expect(turn.content).toBe("Once upon a TERM");
  expect(turn.events.map((event) => event.case)).toEqual([
    "agentStarted",
    "textDelta",
    "textDelta",
    "messageCompleted",
    "usageRecorded",
  ]);
});

const CALL = { id: "c1", name: "search", argumentsJson: "{}" } as const;

/** One reply of the scripted model, or its failure after the pieces. */
type Scripted = ModelReply & {
  readonly pieces: readonly string[];
  readonly failure?: Failure;
  readonly before?: () => void;
  /** Attempts at other endpoints that came to nothing first. */
  readonly failedBefore?: readonly ModelAttempt[];
};

function reply(...pieces: string[]): Scripted {
  return { pieces, model: "gpt-4", text: pieces.join(""), toolCalls: [], ended: "stop", usage: USAGE };
}

async function run({
  script,
  events = [],
  stop = new AbortController(),
  ...input
}: { script: readonly Scripted[]; events?: TurnEvent[]; stop?: AbortController } & Partial<TurnInput>) {
  const requests: ModelRequest[] = [];
  let messageIds = 0;
  const end = await runSingleTeam(
    { team: TEAM, history: [], message: "Hi", maxTokens: 4_000, ...input },
    {
      signal: stop.signal,
      emit: (event) => void events.push(event),
      newMessageId: () => `m${++messageIds}`,
      model: withAttempts({
        async call(request, observer) {
          const scripted = script[requests.length] ?? expect.fail("the script has no such call");
          requests.push(request);
          for (const attempt of scripted.failedBefore ?? []) observer.onAttempt(attempt);
          for (const piece of scripted.pieces) observer.onText(piece);
          scripted.before?.();
          if (scripted.failure !== undefined) throw scripted.failure;
          return scripted;
        },
      }),
    },
  );
  const deltas = events.flatMap((event) => (event.case === "textDelta" ? [event.value.text] : []));
  const content = events.findLast((event) => event.case === "messageCompleted")?.value.content;
  return { end, events, requests, deltas, content };
}

function record(role: Role, content: string) {
  const tokenizer = tokenizerFor("gpt-4");
  return create(MessageRecordSchema, {
    schemaVersion: 1,
    message: { role, content },
    tokenCount: tokenizer.countText(content),
    tokenizer: tokenizer.name,
  });
}
