import type { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { Failure, type FailureFacts, type FailureReason } from "../failure.ts";
import type { ToolSpec } from "./tool.ts";

/**
 * What agents need from a language model: one call, its text as it comes, its end as a value.
 *
 * The text is pushed, not pulled: a turn outlives its readers, so nothing may slow a model down, and one promise per
 * call costs less than one per delta and layer. Breaker, fallback and provider are wrappers of this one port.
 */
export interface Model {
  /**
   * Makes one call, in one attempt or, where endpoints fail, several. Resolves when the model has ended its reply;
   * rejects with a {@link ModelCallFailure} when a call was made and did not end well (refused, cut, stalled, cancelled
   * through `signal`), with a plain {@link Failure} when none was made at all: the breaker is open, or no connection
   * was had, so that no provider can have counted anything.
   *
   * Each attempt waits for `observer.beforeAttempt` before it is sent, and is told to `observer.onAttempt` when it was made,
   * the one that the promise settles with included.
   */
  call(request: ModelRequest, observer: ModelObserver): Promise<ModelReply>;
}

/** The conversation, the tools and the bounds of one call. */
export interface ModelRequest {
  /** Model name as the endpoint knows it. */
  readonly model: string;
  readonly messages: readonly ModelMessage[];
  /** What the model may ask for. */
  readonly tools: readonly ToolSpec[];
  /** Sampling temperature, 0 to 2. */
  readonly temperature: number;
  /** Largest number of tokens that the model may produce. */
  readonly maxOutputTokens: number;
  /** Largest number of prompt and completion tokens of all attempts together. */
  readonly maxTotalTokens: number;
  /** An attempt is given up this many milliseconds after its start. */
  readonly timeoutMs: number;
}

/** One message as models read it. */
export type ModelMessage =
  | { readonly role: "system"; readonly content: string }
  /** `name`: the agent that said it, where that is another than the one that is asked. */
  | { readonly role: "user"; readonly content: string; readonly name?: string }
  | { readonly role: "assistant"; readonly content: string; readonly toolCalls?: readonly ModelToolCall[] }
  | { readonly role: "tool"; readonly content: string; readonly toolCallId: string };

/** A tool call that a model asks for. */
export interface ModelToolCall {
  readonly id: string;
  readonly name: string;
  readonly argumentsJson: string;
}

export interface ModelObserver {
  /** Ends the call; the rejection's cause is the signal's reason. */
  readonly signal: AbortSignal;
  /** Called synchronously with each piece of text, never with an empty one, never after the promise settled. */
  onText(text: string): void;
  /**
   * Called before each attempt; it is sent only when the promise resolves, and given up with what it rejects with. Then
   * `onAttempt` is called, or `onUnsent`.
   */
  beforeAttempt(attempt: IntendedAttempt): Promise<void>;
  /** Called synchronously when the attempt that was waited for last was not sent after all: there was no connection. */
  onUnsent(): void;
  /**
   * Called synchronously once for each attempt that was made, when it has ended and before the promise settles. What an
   * attempt used is in a record because of this call, and of nothing else.
   */
  onAttempt(attempt: ModelAttempt): void;
}

/** One request that is about to be sent to one endpoint: what it uses at most. */
export interface IntendedAttempt {
  /** The model that is asked, as it is priced. */
  readonly model: string;
  readonly promptTokens: number;
  readonly maxOutputTokens: number;
  readonly timeoutMs: number;
}

/** One request that was sent to one endpoint, and what came of it. */
export interface ModelAttempt {
  /** The model that was asked, as it is priced. */
  readonly model: string;
  readonly outcome: "ok" | "failed" | "cancelled";
  readonly usage: CallUsage;
}

/** Token counts of one call. */
export interface CallUsage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** Prompt tokens that the provider had cached; part of the prompt. Absent: none, or not told. */
  readonly cachedPromptTokens?: number;
  /** Completion tokens spent on reasoning; part of the completion. Absent: none, or not told. */
  readonly reasoningTokens?: number;
  readonly source: UsageSource;
}

/** A reply that the model has ended. `text` equals the pieces put together. */
export interface ModelReply {
  /** The model that answered, as it is priced. */
  readonly model: string;
  readonly text: string;
  readonly toolCalls: readonly ModelToolCall[];
  readonly ended: "stop" | "length" | "content_filter" | "tool_calls";
  readonly usage: CallUsage;
}

/** A call that was made and failed: what it used all the same. */
export class ModelCallFailure extends Failure {
  readonly model: string;
  readonly usage: CallUsage;

  constructor(
    reason: FailureReason,
    { model, usage, ...facts }: FailureFacts & { model: string; usage: CallUsage },
    options?: ErrorOptions,
  ) {
    super(reason, facts, options);
    this.name = "ModelCallFailure";
    this.model = model;
    this.usage = usage;
  }
}
