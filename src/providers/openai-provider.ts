import OpenAI from "openai";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { type CallUsage, type Model, ModelCallFailure, type ModelMessage, type ModelRequest } from "../engine/model.ts";
import { tokenizerFor } from "../engine/tokenizer.ts";
import { Failure, type FailureFacts, type FailureReason } from "../failure.ts";
import { type CompletionStream, createCompletionStream } from "./completion-stream.ts";
import type { ModelTransport, TransportRequest, TransportResponse } from "./model-transport.ts";

/** One model at one OpenAI-compatible server. */
export interface ModelEndpoint extends Model {
  /** Resolves when the server answers at all, whatever it says. */
  probe(signal: AbortSignal): Promise<void>;
}

/** How long a provider that says nothing about it is left alone, in milliseconds. */
const RETRY_AFTER_MS = 1_000;

/** Makes calls with the `openai` client. It never retries: each retry is a call of its own for those above (DESIGN §6). */
export function createOpenAiProvider({
  baseUrl,
  apiKey,
  model,
  outputBound,
  transport,
  idleTimeoutMs = 30_000,
}: {
  baseUrl: string;
  /** Absent: the server asks for none. */
  apiKey: string | undefined;
  /** Name of the model at this server. */
  model: string;
  /** The request's field that bounds the output. */
  outputBound: "max_completion_tokens" | "max_tokens";
  transport: ModelTransport;
  /**
   * A stream that is silent for this long has stalled, in milliseconds. Default 30,000: models that think before they
   * speak send chunks meanwhile, and half a minute is what a person waits for.
   */
  idleTimeoutMs?: number;
}): ModelEndpoint {
  const client = new OpenAI({
    baseURL: baseUrl,
    apiKey: apiKey ?? "none",
    maxRetries: 0,
    logLevel: "off",
    fetch: ((url: string, init: TransportRequest) => transport.fetch(String(url), asTransportRequest(init))) as never,
  });

  return {
    async call(request, { signal, onText }) {
      if (signal.aborted) throw new Failure("CALL_CANCELLED", {}, { cause: signal.reason });
      const stream = createCompletionStream();
      const deadline = createDeadline(signal);
      deadline.within(request.timeoutMs);
      let answered = false;
      try {
        const response: unknown = await client.chat.completions
          .create(asCompletion(request, { model, outputBound }), {
            signal: deadline.signal,
            timeout: request.timeoutMs,
          })
          .asResponse();
        answered = true;
        deadline.idleWithin(idleTimeoutMs);
        await transport.readBody(response as TransportResponse, {
          signal: deadline.signal,
          onChunk(chunk) {
            deadline.idleWithin(idleTimeoutMs);
            const text = stream.push(chunk);
            if (text !== "") onText(text);
          },
        });
        if (stream.ended === undefined) throw new Error("the stream ended before the reply did");
        const { text, toolCalls, ended } = stream;
        return { model, text, toolCalls, ended, usage: usageOf(stream, { request, model }) };
      } catch (error) {
        const { reason, ...facts } = signal.aborted ? { reason: "CALL_CANCELLED" as const } : explain(error);
        const cause = signal.aborted ? signal.reason : error;
        if (neverSent(error)) throw new Failure(reason, facts, { cause });
        // A provider that refused a call bills nothing; one that took it may bill all that it was sent.
        const refused = !answered && error instanceof OpenAI.APIError && error.status !== undefined;
        const usage = refused ? nothingUsed : usageOf(stream, { request, model });
        throw new ModelCallFailure(reason, { ...facts, model, usage }, { cause });
      } finally {
        deadline.clear();
      }
    },

    async probe(signal) {
      try {
        await client.models.list({ signal }).asResponse();
      } catch (error) {
        if (!(error instanceof OpenAI.APIError) || error.status === undefined) throw error;
      }
    },
  };
}

const nothingUsed: CallUsage = { promptTokens: 0, completionTokens: 0, source: UsageSource.TOKENIZER_ESTIMATE };

function asTransportRequest({ method, headers, body, signal }: TransportRequest): TransportRequest {
  return { method, headers: new Headers(headers), signal, ...(body == null ? {} : { body }) };
}

function asCompletion(request: ModelRequest, { model, outputBound }: { model: string; outputBound: string }) {
  return {
    model,
    messages: request.messages.map(asOpenAiMessage),
    temperature: request.temperature,
    [outputBound]: request.maxOutputTokens,
    stream: true,
    stream_options: { include_usage: true },
  } as const;
}

function asOpenAiMessage(message: ModelMessage): OpenAI.ChatCompletionMessageParam {
  switch (message.role) {
    case "system":
    case "user":
      return { role: message.role, content: message.content };
    case "tool":
      return { role: "tool", content: message.content, tool_call_id: message.toolCallId };
    case "assistant": {
      const calls = message.toolCalls ?? [];
      if (calls.length === 0) return { role: "assistant", content: message.content };
      return {
        role: "assistant",
        content: message.content,
        tool_calls: calls.map(({ id, name, argumentsJson }) => ({
          id,
          type: "function",
          function: { name, arguments: argumentsJson },
        })),
      };
    }
  }
}

/** What the provider counted; where it did not, what a tokenizer makes of what was sent and received. */
function usageOf(stream: CompletionStream, { request, model }: { request: ModelRequest; model: string }): CallUsage {
  if (stream.usage !== undefined) return { ...stream.usage, source: UsageSource.PROVIDER };
  const tokenizer = tokenizerFor(model);
  const calls = stream.toolCalls.map((call) => call.name + call.argumentsJson).join("");
  return {
    promptTokens: tokenizer.countPrompt(request.messages),
    completionTokens: tokenizer.countText(stream.text + calls),
    source: UsageSource.TOKENIZER_ESTIMATE,
  };
}

/** A failed call in the words of the error table. The provider's own words go no further than the log. */
function explain(error: unknown): { reason: FailureReason } & FailureFacts {
  const status = error instanceof OpenAI.APIError ? error.status : undefined;
  switch (status) {
    case 429:
      return { reason: "MODEL_RATE_LIMITED", retryAfterMs: retryAfterMs((error as { headers?: Headers }).headers) };
    case 400:
    case 401:
    case 403:
    case 404:
      return { reason: "MODEL_REFUSED" };
    default:
      return { reason: "MODEL_UNAVAILABLE", retryAfterMs: RETRY_AFTER_MS };
  }
}

/** Retry-After in milliseconds: seconds or a date (RFC 9110, 10.2.3). */
function retryAfterMs(headers: Headers | undefined): number {
  const value = headers?.get("retry-after") ?? "";
  const seconds = value === "" ? Number.NaN : Number(value);
  const ms = Number.isNaN(seconds) ? Date.parse(value) - Date.now() : seconds * 1_000;
  return ms > 0 ? ms : RETRY_AFTER_MS;
}

/** Whether no byte of the request can have reached a server: the connection was never accepted. */
function neverSent(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code !== undefined && NOT_CONNECTED.has(code)) return true;
  }
  return false;
}

const NOT_CONNECTED = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "UND_ERR_CONNECT_TIMEOUT",
]);

/** A signal that follows another and also ends when a call takes, or is silent for, too long. */
function createDeadline(parent: AbortSignal) {
  const controller = new AbortController();
  const follow = (): void => controller.abort(parent.reason);
  parent.addEventListener("abort", follow, { once: true });
  let total: ReturnType<typeof setTimeout> | undefined;
  let idle: ReturnType<typeof setTimeout> | undefined;
  let idleMs = 0;
  return {
    signal: controller.signal,
    within(ms: number): void {
      total = setTimeout(() => controller.abort(new Error(`no end after ${ms} ms`)), ms);
    },
    /** Begins the wait for the next chunk anew. */
    idleWithin(ms: number): void {
      if (idle !== undefined && idleMs === ms && typeof idle.refresh === "function") {
        idle.refresh();
        return;
      }
      clearTimeout(idle);
      idleMs = ms;
      idle = setTimeout(() => controller.abort(new Error(`no chunk for ${ms} ms`)), ms);
    },
    clear(): void {
      clearTimeout(total);
      clearTimeout(idle);
      parent.removeEventListener("abort", follow);
    },
  };
}
