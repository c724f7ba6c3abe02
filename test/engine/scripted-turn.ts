import { create } from "@bufbuild/protobuf";
import { expect } from "vitest";
import type { Role } from "../../gen/parley/chat/v1/message_pb.js";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { type MessageRecord, MessageRecordSchema } from "../../gen/parley/storage/v1/message_record_pb.js";
import { PersonAnswerSchema } from "../../gen/parley/storage/v1/pending_input_pb.js";
import type { ModelAttempt, ModelReply, ModelRequest } from "../../src/engine/model.ts";
import { runTeam } from "../../src/engine/run-team.ts";
import type { AgentDefinition, TeamDefinition } from "../../src/engine/team.ts";
import { tokenizerFor } from "../../src/engine/tokenizer.ts";
import type { Tool } from "../../src/engine/tool.ts";
import type { TurnEvent, TurnInput } from "../../src/engine/turn.ts";
import type { Failure } from "../../src/failure.ts";
import { withAttempts } from "../../src/providers/attempt-provider.ts";

export const ASSISTANT: AgentDefinition = {
  name: "assistant",
  systemMessage: "You are helpful.",
  model: "gpt-4",
  temperature: 0.3,
  contextWindowTokens: 8_192,
  tools: [],
};

export const TEAM: TeamDefinition = {
  name: "assistant",
  kind: "single",
  agents: [ASSISTANT],
  maxRounds: 3,
  maxConsecutiveAutoReply: 10,
  terminationText: "TERMINATE",
  callTimeoutMs: 120_000,
  historyMessages: 100,
};

export const USAGE = { promptTokens: 20, completionTokens: 5, source: UsageSource.PROVIDER };

/** One reply of the scripted model, or its failure after the pieces. */
export type Scripted = ModelReply & {
  readonly pieces: readonly string[];
  readonly failure?: Failure;
  readonly before?: () => void;
  /** Attempts at other endpoints that came to nothing first. */
  readonly failedBefore?: readonly ModelAttempt[];
};

export function reply(...pieces: string[]): Scripted {
  return { pieces, model: "gpt-4", text: pieces.join(""), toolCalls: [], ended: "stop", usage: USAGE };
}

/** A reply that asks for tool calls. */
export function asking(...toolCalls: ModelReply["toolCalls"]): Scripted {
  return { ...reply(), toolCalls, ended: "tool_calls" };
}

/** Runs a team on a scripted model, in one piece and with no log. */
export async function run({
  script,
  events = [],
  stop = new AbortController(),
  tools = [],
  answers = {},
  ...input
}: {
  script: readonly Scripted[];
  events?: TurnEvent[];
  stop?: AbortController;
  tools?: readonly Tool[];
  /** What a person has answered, by the question's id. */
  answers?: Readonly<Record<string, { approved: boolean; text: string }>>;
} & Partial<TurnInput>) {
  const requests: ModelRequest[] = [];
  let messageIds = 0;
  let toolCallIds = 0;
  const { message = "Hi" } = input;
  const turn = { team: TEAM, history: [], message, userTexts: [message], maxTokens: 4_000, startTimeMs: 0, ...input };
  const used = (): number =>
    events.reduce(
      (sum, event) => sum + (event.case === "usageRecorded" ? (event.value.tokenUsage?.totalTokens ?? 0) : 0),
      0,
    );
  const end = await runTeam(turn, {
    signal: stop.signal,
    attempts: { beforeAttempt: async () => undefined, onUnsent: () => undefined, onAttempt: () => undefined },
    emit: (event) => void events.push(event),
    newMessageId: () => `m${++messageIds}`,
    newToolCallId: (modelsId) => `${modelsId}-${++toolCallIds}`,
    answerTo: ({ id }) => answers[id] && create(PersonAnswerSchema, { questionId: id, ...answers[id] }),
    tokensLeft: () => turn.maxTokens - used(),
    async modelStep(_, make) {
      const usedBefore = used();
      const result = await make({ id: `call-${requests.length + 1}`, cutText: "", isOver: false });
      result.usedTokens = BigInt(used());
      result.callTokens = BigInt(used() - usedBefore);
      return result;
    },
    toolStep: (_, call) => call.run({ id: `tool-${toolCallIds}` }),
    tools: new Map(tools.map((tool) => [tool.name, tool])),
    model: withAttempts(
      {
        async call(request, observer) {
          const scripted = script[requests.length] ?? expect.fail("the script has no such call");
          requests.push(request);
          for (const attempt of scripted.failedBefore ?? []) observer.onAttempt(attempt);
          for (const piece of scripted.pieces) observer.onText(piece);
          scripted.before?.();
          if (scripted.failure !== undefined) throw scripted.failure;
          return scripted;
        },
      },
      "gpt-4",
    ),
  });
  const deltas = events.flatMap((event) => (event.case === "textDelta" ? [event.value.text] : []));
  const content = events.findLast((event) => event.case === "messageCompleted")?.value.content;
  return { end, events, requests, deltas, content };
}

export function record(role: Role, content: string, agent = ""): MessageRecord {
  const tokenizer = tokenizerFor("gpt-4");
  return create(MessageRecordSchema, {
    schemaVersion: 1,
    message: { role, content, agent },
    tokenCount: tokenizer.countText(content),
    tokenizer: tokenizer.name,
  });
}
