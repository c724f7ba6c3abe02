import OpenAI from "openai";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import {
  type CallUsage,
  type Model,
  ModelCallFailure,
  type ModelMessage,
  type ModelReply,
  type ModelRequest,
} from "../engine/model.ts";
import { tokenizerFor } from "../engine/tokenizer.ts";
import type { ToolSpec } from "../engine/tool.ts";
import { Failure, type FailureFacts, type FailureReason } from "../failure.ts";
import { type CompletionStream, createCompletionStream } from "./completion-stream.ts";
import type { ModelTransport } from "./model-transport.ts";

/** One model at one OpenAI-compatible server. */
export interface ModelEndpoint extends Model {
  /** Resolves when the server answers at all, whatever it says. */
  probe(signal: AbortSignal): Promise<void>;
}

/** How long a provider that says nothing about it is left alone, in milliseconds. */
const RETRY_AFTER_MS = 1_000;

/** Longest wait that a provider is believed, in milliseconds: nobody's rate window is longer than a day. */
const RETRY_AFTER_MAX_MS = 86_400_000;

/**
 * Makes calls as the `openai` client does: its addresses, headers, authentication and errors. It never retries: each retry
 * is a call of its own for those above (DESIGN §6).
 */
export function createOpenAiProvider({
  baseUrl,
  apiKey,
  model,
  outputBound,
  transport,
  idleTimeoutMs,
}: {
  baseUrl: string;
  /** Absent: the server asks for none. */
  apiKey: string | undefined;
  /** Name of the model at this server. */
  model: string;
  /** The request's field that bounds the output. */
  outputBound: "max_completion_tokens" | "max_tokens";
  transport: ModelTransport;
  /** A stream that is silent for this long has stalled, in milliseconds. */
  idleTimeoutMs: number;
}): ModelEndpoint {
  const client = new OpenAI({ baseURL: baseUrl, apiKey: apiKey ?? "none", logLevel: "off" });
  const chat = requestHead(client, { method: "post", path: "/chat/completions", body: {} });
  const list = requestHead(client, { method: "get", path: "/models" });

  return {
    async call(request, { signal, onText }) {
      if (signal.aborted) throw new Failure("CALL_CANCELLED", {}, { cause: signal.reason });
      const stream = createCompletionStream();
      const deadline = createDeadline(signal);
      deadline.within(request.timeoutMs);
      let answered = false;
      try {
        const response = await transport.send({
          ...(await chat()),
          method: "POST",
          body: JSON.stringify(asCompletion(request, { model, outputBound })),
          signal: deadline.signal,
        });
        if (isRefusal(response.status)) {
          await response.read(() => true);
          throw OpenAI.APIError.generate(response.status, undefined, undefined, response.headers);
        }
        answered = true;
        deadline.idleWithin(idleTimeoutMs);
        await response.read((chunk) => {
          const text = stream.push(chunk);
          deadline.idleWithin(idleTimeoutMs);
          if (text !== "") onText(text);
          return stream.done;
        });
        if (stream.ended === undefined) throw new Error("the stream ended before the reply did");
        return replyOf(stream, { request, model, ended: stream.ended });
      } catch (error) {
        // A reply that has ended is whole, whatever becomes of the connection after it.
        if (stream.ended !== undefined && !signal.aborted)
          return replyOf(stream, { request, model, ended: stream.ended });
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
      const response = await transport.send({ ...(await list()), method: "GET", signal });
      // To its end, or its connection would be lost.
      await response.read(() => false);
    },
  };
}

/** Address and headers of a request, as the client builds them; they are the same for each. */
function requestHead(client: OpenAI, options: Parameters<OpenAI["buildRequest"]>[0]) {
  let head: Promise<{ readonly url: string; readonly headers: Readonly<Record<string, string>> }> | undefined;
  return () => {
    head ??= client.buildRequest(options).then(({ req, url }) => {
      // Its own timeout, which is not that of any call.
      req.headers.delete("x-stainless-timeout");
      return { url, headers: Object.fromEntries(req.headers) };
    });
    return head;
  };
}

function isRefusal(status: number): boolean {
  return status < 200 || status > 299;
}

const nothingUsed: CallUsage = { promptTokens: 0, completionTokens: 0, source: UsageSource.TOKENIZER_ESTIMATE };

function asCompletion(request: ModelRequest, { model, outputBound }: { model: string; outputBound: string }) {
  return {
    model,
    messages: request.messages.map(asOpenAiMessage),
    temperature: request.temperature,
    [outputBound]: request.maxOutputTokens,
    ...(request.tools.length === 0 ? {} : { tools: request.tools.map(asOpenAiTool) }),
    stream: true,
    stream_options: { include_usage: true },
  } as const;
}

function asOpenAiTool({ name, description, parameters }: ToolSpec): OpenAI.ChatCompletionTool {
  return { type: "function", function: { name: nameOnWire(name), description, parameters } };
}

/** A tool's name as the API takes it, which has no dots: `files.read` is `files__read`. parley.yaml has no two that are one. */
function nameOnWire(name: string): string {
  return name.replaceAll(".", "__");
}

/** The name of the tool that a model asks for by its name on the wire; of one that it was not offered, what it said. */
function nameOffered(said: string, { tools }: Pick<ModelRequest, "tools">): string {
  return tools.find(({ name }) => nameOnWire(name) === said)?.name ?? said;
}

function asOpenAiMessage(message: ModelMessage): OpenAI.ChatCompletionMessageParam {
  switch (message.role) {
    case "system":
      return { role: "system", content: message.content };
    case "user":
      return { role: "user", content: message.content, ...(message.name === undefined ? {} : { name: message.name }) };
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
          function: { name: nameOnWire(name), arguments: argumentsJson },
        })),
      };
    }
  }
}

function replyOf(
  stream: CompletionStream,
  { request, model, ended }: { request: ModelRequest; model: string; ended: ModelReply["ended"] },
): ModelReply {
  const { text } = stream;
  const toolCalls = stream.toolCalls.map(({ id, name, argumentsJson }) => ({
    id,
    name: nameOffered(name, request),
    // Some servers write no text at all where a tool has no arguments.
    argumentsJson: argumentsJson.trim() === "" ? "{}" : argumentsJson,
  }));
  return { model, text, toolCalls, ended, usage: usageOf(stream, { request, model }) };
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
  const { status, headers } = error instanceof OpenAI.APIError ? error : {};
  switch (status) {
    case 429:
      return { reason: "MODEL_RATE_LIMITED", retryAfterMs: retryAfterMs(headers) };
    case 400:
    case 401:
    case 403:
    case 404:
      return { reason: "MODEL_REFUSED" };
    default:
      return { reason: "MODEL_UNAVAILABLE", retryAfterMs: retryAfterMs(headers) };
  }
}

/** Retry-After in milliseconds: seconds or a date (RFC 9110, 10.2.3). */
function retryAfterMs(headers: Headers | undefined): number {
  const value = headers?.get("retry-after") ?? "";
  const seconds = value === "" ? Number.NaN : Number(value);
  const ms = Number.isNaN(seconds) ? Date.parse(value) - Date.now() : seconds * 1_000;
  return ms > 0 ? Math.min(ms, RETRY_AFTER_MAX_MS) : RETRY_AFTER_MS;
}

/**
 * Whether no byte of the request can have reached a server: there was no connection, or none that was trusted. Then
 * nobody can have counted a token, and the attempt has no record. Where a runtime does not say so (fetch in workerd has
 * no codes) it counts as sent.
 */
function neverSent(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code !== undefined && (NOT_CONNECTED.has(code) || NOT_TRUSTED.test(code))) return true;
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

/** Codes of TLS handshakes that failed (Node.js, "X509 certificate error codes" and "OpenSSL error codes"). */
const NOT_TRUSTED = /^(ERR_SSL_|ERR_TLS_|CERT_|UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|HOSTNAME_MISMATCH)/;

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
