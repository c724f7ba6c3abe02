import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";
import {
  type ChatRequest,
  ChatResponseSchema,
  type ChatService,
  OnDisconnect,
  type StreamChatRequest,
  type StreamChatResponse,
  StreamChatResponseSchema,
} from "../../gen/parley/chat/v1/chat_service_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { Failure } from "../failure.ts";
import type { Principal } from "../identity/principal.ts";
import { type AdmissionPorts, admitTurn } from "../turns/admission.ts";
import type { TurnStore } from "../turns/ports.ts";
import { type TailItem, tailTurn } from "../turns/tail.ts";
import { parseTurnId } from "../turns/turn-id.ts";
import type { RunningTurn } from "../turns/turn-runner.ts";
import { callContextOf, touch } from "./call-context.ts";
import { checkChatRequest } from "./request-validation.ts";

export interface ChatHandlerPorts {
  readonly admission: AdmissionPorts;
  readonly store: Pick<TurnStore, "follow" | "readLog" | "getTurn">;
  /** Largest `max_tokens` that a request may ask for. */
  readonly maxTokens: number;
  /** What an unspecified on_disconnect acts as: CONTINUE, or CANCEL where work cannot outlive its request. */
  readonly defaultOnDisconnect: OnDisconnect.CONTINUE | OnDisconnect.CANCEL;
  /** Called when a turn's first text goes out, with the seconds since its call came. */
  firstText(seconds: number): void;
}

/** ChatService: every RPC starts a turn or reads one. */
export function createChatHandlers(ports: ChatHandlerPorts): ServiceImpl<typeof ChatService> {
  return {
    async chat(request, context) {
      const arrivedMs = performance.now();
      const reply = { response: "", turnId: "", sessionId: "" };
      let completed: MessageInitShape<typeof ChatResponseSchema> = {};
      for await (const { event } of runTurn(request, { context, ports })) {
        switch (event.case) {
          case "turnStarted":
            reply.turnId = event.value.turnId;
            reply.sessionId = event.value.sessionId;
            break;
          case "messageCompleted":
            reply.response = event.value.content;
            break;
          case "turnCompleted": {
            const { finishReason, tokenUsage, costMicroUsd } = event.value;
            completed = { finishReason, costMicroUsd, ...(tokenUsage === undefined ? {} : { tokenUsage }) };
          }
        }
      }
      const processingTimeMs = BigInt(Math.round(performance.now() - arrivedMs));
      return create(ChatResponseSchema, { ...reply, ...completed, processingTimeMs });
    },

    streamChat(request, context) {
      return runTurn(request, { context, ports });
    },

    async getTurn(request, context) {
      const { principal } = callContextOf(context);
      const ref = parseTurnId(request.turnId);
      const turn = ref !== undefined && ref.tenant === principal.tenant ? await ports.store.getTurn(ref) : undefined;
      if (turn === undefined) throw new Failure("TURN_NOT_FOUND");
      touch(context, { sessionId: turn.sessionId, turnId: turn.turnId });
      return { turn };
    },

    // biome-ignore lint/correctness/useYield: nothing to stream yet
    async *resumeTurn() {
      throw new Failure("NOT_IMPLEMENTED");
    },
    async cancelTurn() {
      throw new Failure("NOT_IMPLEMENTED");
    },
    async previewChat() {
      throw new Failure("NOT_IMPLEMENTED");
    },
  };
}

/** Starts a turn and reads it to its end. */
async function* runTurn(
  request: ChatRequest | StreamChatRequest,
  { context, ports }: { context: HandlerContext; ports: ChatHandlerPorts },
): AsyncGenerator<StreamChatResponse, void> {
  const arrivedMs = performance.now();
  checkChatRequest(request, { maxTokens: ports.maxTokens });
  const mayOutliveCall = ports.defaultOnDisconnect === OnDisconnect.CONTINUE;
  if (request.onDisconnect === OnDisconnect.CONTINUE && !mayOutliveCall) throw new Failure("CONTINUE_NOT_POSSIBLE");
  if (request.sessionId !== "") touch(context, { sessionId: request.sessionId });
  const { principal } = callContextOf(context);
  const { turn, waited } = yield* admitted(request, { principal, context, ports });
  touch(context, { sessionId: turn.ref.sessionId, turnId: turn.ref.turnId });

  let lastSequence = 0n;
  let done = false;
  let silent = true;
  try {
    const tail = tailTurn({
      store: ports.store,
      ref: turn.ref,
      afterSequence: 0n,
      head: [turn.firstEntry],
      signal: context.signal,
      lost: turn.lost,
    });
    for await (const item of tail) {
      for (const response of responsesOf(item)) {
        if (silent && response.event.case === "textDelta") {
          silent = false;
          if (!waited) ports.firstText((performance.now() - arrivedMs) / 1_000);
        }
        done ||= response.event.case === "turnCompleted";
        lastSequence = response.sequence || lastSequence;
        yield response;
      }
    }
  } catch (error) {
    if (done) throw error;
    if (turn.lost.aborted) throw endOfLost(turn, lastSequence);
    if (!context.signal.aborted) throw error;
    const ended = endOfCall(context.signal);
    // A turn that ends with its call needs no cursor to read on from.
    throw cancelsOnDisconnect(request, ports) ? ended : withCursor(ended, { turn, lastSequence });
  } finally {
    if (!done && cancelsOnDisconnect(request, ports)) {
      const late = context.signal.aborted && endOfCall(context.signal).reason === "DEADLINE_EXCEEDED";
      turn.stop(late ? FinishReason.DEADLINE : FinishReason.CANCELLED);
    }
  }
}

/** Admits the turn; tells the caller of its place while it waits. */
async function* admitted(
  request: ChatRequest | StreamChatRequest,
  { principal, context, ports }: { principal: Principal; context: HandlerContext; ports: ChatHandlerPorts },
): AsyncGenerator<StreamChatResponse, { turn: RunningTurn; waited: boolean }> {
  const { sessionId, message, agentTeam, useCase, maxTokens, metadata } = request;
  const admission = admitTurn(
    {
      tenant: principal.tenant,
      userId: principal.userId ?? request.userId,
      sessionId,
      message,
      agentTeam,
      useCase,
      maxTokens,
      ...(metadata === undefined ? {} : { metadata }),
    },
    { ports: ports.admission, signal: context.signal },
  );
  try {
    let waited = false;
    for (;;) {
      const step = await admission.next();
      if (step.done) return { turn: step.value, waited };
      waited = true;
      yield create(StreamChatResponseSchema, { event: { case: "turnQueued", value: { position: step.value } } });
    }
  } catch (error) {
    throw context.signal.aborted && error === context.signal.reason ? endOfCall(context.signal) : error;
  } finally {
    // A caller that goes away while it waits gives up its place.
    await admission.return(undefined as never);
  }
}

function responsesOf(item: TailItem): StreamChatResponse[] {
  if (item.case === "heartbeat") return [create(StreamChatResponseSchema, { event: { case: "heartbeat", value: {} } })];
  return item.entries.flatMap(({ event }) => (event === undefined ? [] : [event]));
}

function cancelsOnDisconnect(request: ChatRequest | StreamChatRequest, ports: ChatHandlerPorts): boolean {
  const wanted = request.onDisconnect || ports.defaultOnDisconnect;
  return wanted === OnDisconnect.CANCEL;
}

/** Why Connect ended a call: its deadline, or its client. */
function endOfCall(signal: AbortSignal): Failure {
  const late = ConnectError.from(signal.reason).code === Code.DeadlineExceeded;
  return new Failure(late ? "DEADLINE_EXCEEDED" : "CALL_CANCELLED", {}, { cause: signal.reason });
}

/** Why this process does not go on with the turn; with where to read on, unless the turn is gone with its session. */
function endOfLost(turn: RunningTurn, lastSequence: bigint): unknown {
  const { reason } = turn.lost;
  const deleted = reason instanceof Failure && reason.reason === "SESSION_DELETED";
  return deleted ? reason : withCursor(reason, { turn, lastSequence });
}

/** The failure, with where to read on. */
function withCursor(error: unknown, { turn, lastSequence }: { turn: RunningTurn; lastSequence: bigint }): Failure {
  const cursor = { turnId: turn.ref.turnId, lastSequence };
  if (error instanceof Failure) return new Failure(error.reason, { ...error.facts, cursor }, { cause: error });
  return new Failure("INTERNAL", { cursor }, { cause: error });
}
