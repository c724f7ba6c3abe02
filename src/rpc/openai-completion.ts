import type { JsonObject } from "@bufbuild/protobuf";
import type { StreamChatResponse } from "../../gen/parley/chat/v1/chat_service_pb.js";
import type { TokenUsage } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { completedReply, finishReasonOf, type ReplyText } from "./openai-reply.ts";
import type { EventStream } from "./plain-http.ts";

/** What all objects of a completion have. */
export interface CompletionHead {
  readonly id: string;
  readonly created: number;
  readonly model: string;
}

interface Reply {
  readonly content: string;
  readonly finish: ReturnType<typeof finishReasonOf>;
  readonly usage: TokenUsage | undefined;
}

export async function readReply(events: AsyncIterable<StreamChatResponse>): Promise<Reply> {
  const reply = completedReply();
  let content = "";
  let end: Omit<Reply, "content"> = { finish: "stop", usage: undefined };
  for await (const { event } of events) {
    content += reply.add(event);
    if (event.case === "turnCompleted") {
      end = { finish: finishReasonOf(event.value.finishReason), usage: event.value.tokenUsage };
    }
  }
  return { content, ...end };
}

export function completionOf(head: CompletionHead, { content, finish, usage }: Reply): JsonObject {
  return {
    ...head,
    object: "chat.completion",
    choices: [
      { index: 0, message: { role: "assistant", content, refusal: null }, logprobs: null, finish_reason: finish },
    ],
    usage: usageOf(usage),
  };
}

/**
 * Sends a turn as chunks. Nothing is sent before there is text or a sign of life, so that a refusal, the first model
 * call's included, has its own status.
 */
export async function sendStream(
  events: AsyncIterable<StreamChatResponse>,
  {
    stream,
    head,
    reply: replyOf,
    includeUsage,
  }: {
    stream: EventStream;
    head(): CompletionHead;
    reply(): ReplyText;
    includeUsage: boolean;
  },
): Promise<void> {
  let reply: ReplyText | undefined;
  let common: JsonObject = {};
  let isFirst = true;
  let end: Omit<Reply, "content"> = { finish: "stop", usage: undefined };
  const send = (delta: JsonObject, finish: string | null = null): Promise<void> => {
    if (isFirst) common = { ...head(), object: "chat.completion.chunk" };
    const role = isFirst ? { role: "assistant", refusal: null } : {};
    isFirst = false;
    const choices = [{ index: 0, delta: { ...role, ...delta }, logprobs: null, finish_reason: finish }];
    return stream.data(JSON.stringify({ ...common, choices, ...(includeUsage ? { usage: null } : {}) }));
  };
  for await (const { event } of events) {
    if (event.case === "heartbeat") await stream.comment("heartbeat");
    else if (event.case === "turnQueued") await stream.comment(`queued ${event.value.position}`);
    else {
      reply ??= replyOf();
      const content = reply.add(event);
      if (content !== "") await send({ content });
      if (event.case === "turnCompleted") {
        end = { finish: finishReasonOf(event.value.finishReason), usage: event.value.tokenUsage };
      }
    }
  }
  await send(isFirst ? { content: "" } : {}, end.finish);
  if (includeUsage) await stream.data(JSON.stringify({ ...common, choices: [], usage: usageOf(end.usage) }));
  await stream.data("[DONE]");
  stream.end();
}

function usageOf(usage: TokenUsage | undefined): JsonObject {
  const { promptTokens = 0, completionTokens = 0, totalTokens = 0 } = usage ?? {};
  return { prompt_tokens: promptTokens, completion_tokens: completionTokens, total_tokens: totalTokens };
}
