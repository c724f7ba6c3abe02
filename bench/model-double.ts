import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { MODEL_NAMES, type ModelName, REPLY, REPLY_CHUNKS } from "./workload.ts";

/**
 * A process that speaks the OpenAI wire and is never the bottleneck: its replies are rendered once, at start. The
 * model's name says how the reply comes (see {@link MODEL_NAMES}). `GET /bench/calls` counts the calls made so far,
 * `POST /bench/release` ends all replies that are held.
 */

const PACE_MS = 10;

const held = new Set<ServerResponse>();
let calls = 0;

const usage = { prompt_tokens: 600, completion_tokens: REPLY_CHUNKS.length, total_tokens: 600 + REPLY_CHUNKS.length };

interface RenderedReply {
  readonly opening: Buffer;
  /** One server-sent event each, as a model server writes one token after the other. */
  readonly chunks: readonly Buffer[];
  readonly closing: readonly Buffer[];
  readonly unary: Buffer;
}

const replies = new Map<string, RenderedReply>(Object.values(MODEL_NAMES).map((name) => [name, renderReply(name)]));

const server = createServer((request, response) => {
  void answer(request, response);
});
server.keepAliveTimeout = 120_000;
server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () => {
  process.send?.({ port: (server.address() as AddressInfo).port });
});
process.on("disconnect", () => process.exit());

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  switch (request.url) {
    case "/v1/chat/completions":
      return complete(Buffer.concat(parts), response);
    case "/v1/models":
      return answerJson(response, { object: "list", data: [...replies.keys()].map((id) => ({ id, object: "model" })) });
    case "/bench/calls":
      return answerJson(response, { calls });
    case "/bench/release": {
      const released = [...held];
      held.clear();
      for (const one of released) one.end();
      return answerJson(response, { released: released.length });
    }
    default:
      // An OTLP collector too: it takes every trace and keeps none.
      response.writeHead(request.url === "/v1/traces" ? 200 : 404).end();
  }
}

function complete(body: Buffer, response: ServerResponse): void {
  const { model, stream } = JSON.parse(body.toString()) as { model: string; stream?: boolean };
  const reply = replies.get(model);
  if (!reply) {
    response.writeHead(404, { "content-type": "application/json" });
    response.end(JSON.stringify({ error: { message: `no model ${model}`, type: "invalid_request_error" } }));
    return;
  }
  calls++;
  if (!stream) {
    response.writeHead(200, { "content-type": "application/json" }).end(reply.unary);
    return;
  }
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.write(reply.opening);
  if (model === MODEL_NAMES.burst) {
    for (const chunk of reply.chunks) response.write(chunk);
    close(response, reply);
  } else if (model === MODEL_NAMES.paced) {
    pace(response, reply);
  } else {
    hold(response, reply);
  }
}

function close(response: ServerResponse, reply: RenderedReply): void {
  for (const part of reply.closing) response.write(part);
  response.end();
}

function pace(response: ServerResponse, reply: RenderedReply): void {
  let next = 0;
  const timer = setInterval(() => {
    const chunk = reply.chunks[next++];
    if (chunk) {
      response.write(chunk);
    } else {
      clearInterval(timer);
      close(response, reply);
    }
  }, PACE_MS);
  response.on("close", () => clearInterval(timer));
}

function hold(response: ServerResponse, reply: RenderedReply): void {
  const [first, ...others] = reply.chunks;
  if (first) response.write(first);
  const end = response.end.bind(response);
  // Whoever releases it ends it: with what is left of the reply.
  response.end = ((): ServerResponse => {
    for (const chunk of [...others, ...reply.closing]) response.write(chunk);
    return end();
  }) as typeof response.end;
  held.add(response);
  response.on("close", () => held.delete(response));
}

function renderReply(model: ModelName): RenderedReply {
  const id = "chatcmpl-bench";
  const created = 1_700_000_000;
  const event = (value: unknown) =>
    Buffer.from(`data: ${typeof value === "string" ? value : JSON.stringify(value)}\n\n`);
  const head = { id, object: "chat.completion.chunk", created, model };
  const delta = (content: object, finishReason: string | null) =>
    event({ ...head, choices: [{ index: 0, delta: content, finish_reason: finishReason }] });
  return {
    opening: delta({ role: "assistant", content: "" }, null),
    chunks: REPLY_CHUNKS.map((content) => delta({ content }, null)),
    closing: [delta({}, "stop"), event({ ...head, choices: [], usage }), event("[DONE]")],
    unary: Buffer.from(
      JSON.stringify({
        id,
        object: "chat.completion",
        created,
        model,
        choices: [
          {
            index: 0,
            message: { role: "assistant", content: REPLY },
            finish_reason: "stop",
          },
        ],
        usage,
      }),
    ),
  };
}

function answerJson(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(value));
}
