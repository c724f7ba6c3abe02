import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { NODE_IP } from "./pod-network.ts";

/** How the model answers a pod: a version of Parley that costs more or is slower does so by what it asks of models. */
export interface Behaviour {
  /** Before the first token, in milliseconds. */
  readonly firstMs: number;
  /** Between two of its pieces, in milliseconds. */
  readonly pieceMs: number;
  readonly pieces: number;
  /** Tokens of the prompt, as the provider counts them. */
  readonly promptTokens: number;
  /** Every so many calls one is refused; 0: none. */
  readonly refusesEvery: number;
}

export const QUICK: Behaviour = { firstMs: 0, pieceMs: 0, pieces: 5, promptTokens: 600, refusesEvery: 0 };

/** One call in the provider's own books. */
export interface PaidCall {
  /** Address of the pod that made it. */
  readonly from: string;
  /** The last message that it was sent. */
  readonly message: string;
  readonly promptTokens: number;
  completionTokens: number;
  refused: boolean;
}

export interface ModelDouble {
  /** As `model.baseUrl` takes it. */
  readonly baseUrl: string;
  readonly calls: readonly PaidCall[];
  close(): Promise<void>;
}

/** A provider on the bridge that speaks OpenAI's wire and counts what it is asked for. `behaviourOf`: by the pod's address. */
export async function startModelDouble(behaviourOf: (ip: string) => Behaviour): Promise<ModelDouble> {
  const calls: PaidCall[] = [];
  const callsFrom = new Map<string, number>();
  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy());
  });
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    if (request.url !== "/v1/chat/completions") return json(response, 200, { object: "list", data: [] });
    const from = request.socket.remoteAddress?.replace(/^::ffff:/, "") ?? "";
    const { messages, model } = JSON.parse(Buffer.concat(parts).toString()) as {
      messages: { content: string }[];
      model: string;
    };
    const { firstMs, pieceMs, pieces, promptTokens, refusesEvery } = behaviourOf(from);
    const call: PaidCall = {
      from,
      message: messages.at(-1)?.content ?? "",
      promptTokens,
      completionTokens: 0,
      refused: false,
    };
    calls.push(call);
    const count = (callsFrom.get(from) ?? 0) + 1;
    callsFrom.set(from, count);
    if (refusesEvery > 0 && count % refusesEvery === 0) {
      call.refused = true;
      return json(response, 400, { error: { message: "no", type: "invalid_request_error" } });
    }
    response.writeHead(200, { "content-type": "text/event-stream" });
    const send = (value: unknown): void =>
      void response.write(`data: ${typeof value === "string" ? value : JSON.stringify(value)}\n\n`);
    const chunk = (fields: object) => ({ id: "c", object: "chat.completion.chunk", created: 0, model, ...fields });
    await sleep(firstMs);
    for (let piece = 0; piece < pieces && !response.destroyed; piece++) {
      send(
        chunk({
          choices: [{ index: 0, delta: { role: "assistant", content: `piece ${piece} ` }, finish_reason: null }],
        }),
      );
      call.completionTokens += 2;
      if (pieceMs > 0) await sleep(pieceMs);
    }
    send(chunk({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] }));
    const usage = { prompt_tokens: promptTokens, completion_tokens: call.completionTokens };
    send(chunk({ choices: [], usage: { ...usage, total_tokens: promptTokens + call.completionTokens } }));
    send("[DONE]");
    response.end();
  };
  server.listen(0, NODE_IP);
  await once(server, "listening");
  return {
    baseUrl: `http://${NODE_IP}:${(server.address() as AddressInfo).port}/v1`,
    calls,
    async close() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

function json(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
