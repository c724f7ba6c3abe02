import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { ErrorInfoSchema, QuotaFailureSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import {
  ChatService,
  type StreamChatResponse,
  StreamChatResponseSchema,
} from "./gen/parley/chat/v1/chat_service_pb.js";
import { FinishReason, FinishReasonSchema } from "./gen/parley/chat/v1/turn_pb.js";

// Five steps with Parley through connect-web. Each shows what it saw. `?parley=` says where Parley is,
// `?protocol=grpc-web` asks for that instead of Connect.

const MESSAGE = "Grüße aus Köln 🦜";

/** More turns than a service lets one user begin, which is 100 in an hour by default. */
const MANY_TURNS = 200;

type Chat = Client<typeof ChatService>;

async function chat(service: Chat, userId: string): Promise<void> {
  const reply = await service.chat({ message: MESSAGE, userId });
  tell("chat", {
    response: reply.response,
    finish_reason: nameOf(reply.finishReason),
    total_tokens: reply.tokenUsage?.totalTokens,
    cost_micro_usd: Number(reply.costMicroUsd),
  });
}

async function stream(service: Chat, userId: string): Promise<void> {
  const kinds: string[] = [];
  let text = "";
  let finishReason = FinishReason.UNSPECIFIED;
  let lastSequence = 0n;
  let withoutGap = true;
  for await (const { sequence, event } of service.streamChat({ message: MESSAGE, userId })) {
    // Events that are in no log have no number. A kind that this program does not know has no case: it goes on.
    if (sequence === 0n || event.case === undefined) continue;
    withoutGap &&= sequence === lastSequence + 1n;
    lastSequence = sequence;
    const kind = protoName(event.case);
    if (!kinds.includes(kind)) kinds.push(kind);
    if (event.case === "textDelta") text += event.value.text;
    if (event.case === "turnCompleted") finishReason = event.value.finishReason;
  }
  tell("stream", { kinds, without_gap: withoutGap, text, finish_reason: nameOf(finishReason) });
}

async function dropAndResume(service: Chat, userId: string): Promise<void> {
  let turnId = "";
  let text = "";
  let finishReason = FinishReason.UNSPECIFIED;
  let lastSequence = 0n;
  const drop = new AbortController();
  try {
    for await (const { sequence, event } of service.streamChat({ message: MESSAGE, userId }, { signal: drop.signal })) {
      if (sequence > 0n) lastSequence = sequence;
      if (event.case === "turnStarted") turnId = event.value.turnId;
      if (event.case !== "textDelta") continue;
      text += event.value.text;
      drop.abort();
    }
  } catch (error) {
    if (!drop.signal.aborted) throw error;
  }

  // The turn goes on without its call. Any replica, and any time later, would do as well.
  const droppedAfter = lastSequence;
  let withoutGap = true;
  for await (const { sequence, event } of service.resumeTurn({ turnId, afterSequence: droppedAfter })) {
    if (sequence === 0n) continue;
    withoutGap &&= sequence === lastSequence + 1n;
    lastSequence = sequence;
    if (event.case === "textDelta") text += event.value.text;
    if (event.case === "turnCompleted") finishReason = event.value.finishReason;
  }
  tell("resume", {
    dropped_after: Number(droppedAfter),
    last_sequence: Number(lastSequence),
    without_gap: withoutGap,
    text,
    finish_reason: nameOf(finishReason),
  });
}

async function retry(service: Chat, userId: string): Promise<void> {
  const request = { message: MESSAGE, userId, idempotencyKey: crypto.randomUUID() };
  const first = await service.chat(request);
  // As if the first reply had been lost: no model is called again, and nothing is paid for again.
  const again = await service.chat(request);
  tell("retry", { same_turn: again.turnId === first.turnId, response: again.response });
}

async function refusal(service: Chat, userId: string): Promise<void> {
  for (let admitted = 0; admitted < MANY_TURNS; admitted++) {
    try {
      await service.chat({ message: MESSAGE, userId });
    } catch (thrown) {
      const error = ConnectError.from(thrown);
      const [info] = error.findDetails(ErrorInfoSchema);
      const [quota] = error.findDetails(QuotaFailureSchema);
      const [advice] = error.findDetails(RetryInfoSchema);
      tell("refusal", {
        code: error.code === Code.ResourceExhausted ? "RESOURCE_EXHAUSTED" : Code[error.code],
        reason: info?.reason,
        admitted,
        quota: quota?.violations.map(({ description }) => description),
        retry_after_s: Number(advice?.retryDelay?.seconds),
      });
      return;
    }
  }
  throw new Error("was never refused");
}

/** An event's kind as the proto has it. */
function protoName(kind: NonNullable<StreamChatResponse["event"]["case"]>): string {
  return StreamChatResponseSchema.field[kind].name;
}

function nameOf(reason: FinishReason): string | undefined {
  return FinishReasonSchema.value[reason]?.name;
}

function tell(step: string, saw: Readonly<Record<string, unknown>>): void {
  const title = document.createElement("h2");
  title.append(step);
  const shown = document.createElement("pre");
  shown.append(JSON.stringify(saw, undefined, 2));
  const item = document.createElement("li");
  item.append(title, shown);
  document.querySelector("ol")?.append(item);
}

const query = new URLSearchParams(location.search);
const grpcWeb = query.get("protocol") === "grpc-web";
const client = grpcWeb ? "connect-web with gRPC-Web" : "connect-web";
const options = {
  baseUrl: query.get("parley") ?? "http://localhost:8080",
  // A call without a deadline can wait for ever.
  defaultTimeoutMs: 60_000,
};
const transport = grpcWeb ? createGrpcWebTransport(options) : createConnectTransport(options);
const service = createClient(ChatService, transport);
document.querySelector("#client")?.replaceChildren(client);
const status = document.querySelector("[role=status]");
const userId = `example-${crypto.randomUUID()}`;
try {
  for (const step of [chat, stream, dropAndResume, retry, refusal]) await step(service, userId);
  status?.replaceChildren("Done.");
} catch (error) {
  const { code, message } = ConnectError.from(error);
  // A browser does not tell a page why nobody answered it.
  const hint = `Is Parley at ${options.baseUrl}, and ${location.origin} in its CORS_ORIGINS?`;
  status?.replaceChildren(`Failed: ${message}. ${code === Code.Unknown ? hint : ""}`);
  status?.classList.add("failed");
}
