import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type Tokenizer, tokenizerFor } from "../engine/tokenizer.ts";
import { type ScriptOf, type SimulatedChunk, type SimulatedScript, scriptFor } from "./simulated-scripts.ts";

/** A server that speaks the wire of OpenAI's chat completions and answers from nothing but what it was sent. */
export interface SimulatedModel {
  /** Base URL, as OPENAI_BASE_URL takes it. */
  readonly baseUrl: string;
  /** All calls so far, oldest first, at most the newest {@link MAX_CALLS_KEPT}. */
  readonly calls: readonly SimulatedCall[];
  /** Calls so far. */
  readonly callCount: number;
  close(): Promise<void>;
}

/** One call as the provider's own books have it. */
export interface SimulatedCall {
  readonly model: string;
  readonly messages: readonly SimulatedMessage[];
  readonly body: Readonly<Record<string, unknown>>;
  /** When it came, in milliseconds since the epoch. */
  readonly arrivedMs: number;
  promptTokens: number;
  completionTokens: number;
  /** How the call stands: the socket may have been closed before the answer's end, by this side (cut) or the other. */
  state: "open" | "answered" | "cut" | "closed_by_client";
}

export interface SimulatedMessage {
  readonly role: string;
  readonly content: string;
}

const MAX_CALLS_KEPT = 10_000;

/** A cut comes this long after the last chunk, in milliseconds: clients drop what they read together with it. */
const CUT_DELAY_MS = 100;

/**
 * Starts the server. `chunkDelayMs` is the pause between two chunks of a stream, `scriptOf` says what to answer (default: as
 * the model's name asks for), `host` is the address to listen on (default: loopback).
 */
export async function startSimulatedModel({
  host = "127.0.0.1",
  port = 0,
  chunkDelayMs = 15,
  scriptOf = scriptFor,
}: {
  host?: string;
  port?: number;
  chunkDelayMs?: number;
  scriptOf?: ScriptOf;
} = {}): Promise<SimulatedModel> {
  const calls: SimulatedCall[] = [];
  let callCount = 0;
  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy());
  });

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const path = (request.url ?? "").split("?", 1)[0];
    if (request.method === "GET" && path === "/v1/models") {
      return sendJson(response, 200, {
        object: "list",
        data: [{ id: "simulated", object: "model", owned_by: "parley" }],
      });
    }
    if (request.method !== "POST" || path !== "/v1/chat/completions") {
      return sendJson(response, 404, { error: { message: "no such route", type: "invalid_request_error" } });
    }
    const body = await readJson(request);
    const model = String(body.model ?? "");
    const messages = Array.isArray(body.messages) ? (body.messages as SimulatedMessage[]) : [];
    const tokenizer = tokenizerFor(model);
    const call: SimulatedCall = {
      model,
      messages,
      body,
      arrivedMs: Date.now(),
      promptTokens: tokenizer.countPrompt(
        messages.map(({ content }) => ({ role: "user", content: String(content ?? "") })),
      ),
      completionTokens: 0,
      state: "open",
    };
    callCount++;
    calls.push(call);
    if (calls.length > MAX_CALLS_KEPT) calls.shift();
    response.on("close", () => {
      if (call.state === "open") call.state = "closed_by_client";
    });
    const script = scriptOf(model, {
      messages,
      tools: toolsOf(body),
      chunkDelayMs,
      maxTokens: Number(body.max_completion_tokens ?? body.max_tokens ?? 0),
      tokenizer,
    });
    if (script.promptTokens !== undefined) call.promptTokens = script.promptTokens;
    if (script.refusal !== undefined) {
      const { status, headers = {}, contentType = "application/json", body: text } = script.refusal;
      call.state = "answered";
      response.writeHead(status, { ...headers, "content-type": contentType });
      response.end(text);
      return;
    }
    await (body.stream === true ? stream : complete)({ body, call, response, script, tokenizer });
  };

  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => resolve());
  });
  return {
    baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    calls,
    get callCount() {
      return callCount;
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function toolsOf({ tools }: Record<string, unknown>): string[] {
  if (!Array.isArray(tools)) return [];
  return (tools as { function?: { name?: string } }[]).flatMap((tool) => tool.function?.name ?? []);
}

interface Answering {
  readonly body: Readonly<Record<string, unknown>>;
  readonly call: SimulatedCall;
  readonly response: ServerResponse;
  readonly script: SimulatedScript;
  readonly tokenizer: Tokenizer;
}

async function stream({ body, call, response, script, tokenizer }: Answering): Promise<void> {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
  response.flushHeaders();
  const send = (choices: unknown[], usage?: unknown): void => {
    const event = {
      ...envelope(call),
      object: "chat.completion.chunk",
      choices,
      ...(usage === undefined ? {} : { usage }),
    };
    response.write(`data: ${JSON.stringify(event)}\n\n`);
  };
  let said = "";
  let toolCalls = 0;
  for (const chunk of script.chunks) {
    if (chunk.delayMs > 0) await pause(chunk.delayMs, response);
    if (response.destroyed) break;
    if (chunk.raw !== undefined) response.write(chunk.raw);
    else send([{ index: 0, delta: deltaOf(chunk, toolCalls), finish_reason: null }]);
    if (chunk.toolCall !== undefined) toolCalls++;
    said += (chunk.text ?? "") + (chunk.toolCall?.argumentsJson ?? "");
    call.completionTokens = tokenizer.countText(said);
  }
  if (response.destroyed) return;
  switch (script.end) {
    case "cut":
      await pause(CUT_DELAY_MS, response);
      if (response.destroyed) return;
      call.state = "cut";
      response.destroy();
      return;
    case "stall":
      // Until the client has had enough.
      await pause(3_600_000, response);
      return;
    default: {
      send([{ index: 0, delta: {}, finish_reason: script.end }]);
      if (script.completionTokens !== undefined) call.completionTokens = script.completionTokens;
      const options = body.stream_options as { include_usage?: boolean } | undefined;
      if (options?.include_usage === true && script.reportsUsage) send([], usageOf(call));
      call.state = "answered";
      response.end("data: [DONE]\n\n");
    }
  }
}

async function complete({ call, response, script, tokenizer }: Answering): Promise<void> {
  const content = script.chunks.map((chunk) => chunk.text ?? "").join("");
  if (script.end === "stall") await pause(3_600_000, response);
  if (script.end === "cut" || script.end === "stall") {
    response.destroy();
    return;
  }
  call.completionTokens = tokenizer.countText(content);
  call.state = "answered";
  const message = { role: "assistant", content };
  sendJson(response, 200, {
    ...envelope(call),
    object: "chat.completion",
    choices: [{ index: 0, message, finish_reason: script.end }],
    ...(script.reportsUsage ? { usage: usageOf(call) } : {}),
  });
}

function deltaOf({ text, toolCall }: SimulatedChunk, index: number): unknown {
  if (toolCall === undefined) return { role: "assistant", content: text };
  const { id, name, argumentsJson } = toolCall;
  return {
    role: "assistant",
    tool_calls: [{ index, id, type: "function", function: { name, arguments: argumentsJson } }],
  };
}

function envelope({ model }: SimulatedCall) {
  return { id: "chatcmpl-simulated", created: 0, model };
}

function usageOf({ promptTokens, completionTokens }: SimulatedCall) {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
  };
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

async function readJson(request: IncomingMessage): Promise<Record<string, unknown>> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return JSON.parse(Buffer.concat(chunks).toString()) as Record<string, unknown>;
}

/** Waits; ends early when the client closes the connection. */
function pause(ms: number, response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      response.off("close", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    response.on("close", done);
  });
}
