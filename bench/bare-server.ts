import { createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import { create } from "@bufbuild/protobuf";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import OpenAI from "openai";
import {
  ChatResponseSchema,
  ChatService,
  type StreamChatResponse,
  StreamChatResponseSchema,
} from "../gen/parley/chat/v1/chat_service_pb.js";

/**
 * The yardstick: a connect-node handler around the openai SDK's stream, as one would write it in an afternoon. No
 * session, no store, no limit, no log: the request's message goes to the model that `agent_team` names, and what comes
 * back is passed on. The model server's address is the first argument.
 */

const openai = new OpenAI({ apiKey: "bench", baseURL: process.argv[2], maxRetries: 0 });

async function* replyTo(model: string, message: string, signal: AbortSignal): AsyncGenerator<string> {
  const stream = await openai.chat.completions.create(
    {
      model,
      messages: [
        { role: "system", content: "You are a helpful assistant." },
        { role: "user", content: message },
      ],
      temperature: 0.3,
      stream: true,
      stream_options: { include_usage: true },
    },
    { signal },
  );
  for await (const chunk of stream) {
    const text = chunk.choices[0]?.delta.content;
    if (text) yield text;
  }
}

const server = createServer(
  // Node's default of 100 streams to a connection would bound the load, not the server.
  { settings: { maxConcurrentStreams: 1_000 } },
  connectNodeAdapter({
    routes(router) {
      router.service(ChatService, {
        async chat(request, context) {
          let response = "";
          for await (const text of replyTo(request.agentTeam, request.message, context.signal)) response += text;
          return create(ChatResponseSchema, { response });
        },
        async *streamChat(request, context): AsyncGenerator<StreamChatResponse> {
          let sequence = 0n;
          for await (const text of replyTo(request.agentTeam, request.message, context.signal)) {
            sequence++;
            yield create(StreamChatResponseSchema, {
              sequence,
              event: { case: "textDelta", value: { agent: "assistant", text } },
            });
          }
        },
      });
    },
  }),
);
server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () => {
  process.send?.({ port: (server.address() as AddressInfo).port });
});
process.on("disconnect", () => process.exit());
