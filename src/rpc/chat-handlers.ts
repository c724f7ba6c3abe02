import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";
import {
  type ChatRequest,
  ChatResponseSchema,
  type ChatService,
  OnBusy,
  OnDisconnect,
  type PreviewChatRequest,
  type ResumeTurnRequest,
  type ResumeTurnResponse,
  ResumeTurnResponseSchema,
  type StreamChatRequest,
  type StreamChatResponse,
  StreamChatResponseSchema,
} from "../../gen/parley/chat/v1/chat_service_pb.js";
import type { ToolApproval } from "../../gen/parley/chat/v1/tool_approval_pb.js";
import { FinishReason, TurnState } from "../../gen/parley/chat/v1/turn_pb.js";
import { Failure } from "../failure.ts";
import { actingUser, allowedUseCase } from "../identity/principal.ts";
import { type AdmissionPorts, type AdmittedTurn, admitTurn, type TurnRequest } from "../turns/admission.ts";
import { MAX_LOG_EVENTS, type SessionStore, type TurnRef, type TurnStore } from "../turns/ports.ts";
import { type PreviewPorts, previewTurn } from "../turns/preview.ts";
import { type TailItem, tailTurn } from "../turns/tail.ts";
import { parseTurnId } from "../turns/turn-id.ts";
import { callContextOf, touch, turnExtrasKey } from "./call-context.ts";
import { errorTable } from "./error-table.ts";
import { checkAfterSequence, checkChatRequest } from "./request-validation.ts";
import { tellVersion } from "./session-version.ts";

export interface ChatHandlerPorts {
  readonly admission: AdmissionPorts;
  readonly preview: PreviewPorts;
  readonly store: Pick<TurnStore, "follow" | "readLog" | "getTurn" | "stopTurn"> & Pick<SessionStore, "getSession">;
  /** Largest `max_tokens` that a request may ask for. */
  readonly maxTokens: number;
  /** What an unspecified on_disconnect acts as: CONTINUE, or CANCEL where work cannot outlive its request. */
  readonly defaultOnDisconnect: OnDisconnect.CONTINUE | OnDisconnect.CANCEL;
  /** Aborted when this process goes away and works on no turn any more; what is still read here is read on elsewhere. */
  readonly leaving?: AbortSignal;
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
      const turn = await ports.store.getTurn(await refOf(request.turnId, { context, ports }));
      if (turn === undefined) throw new Failure("TURN_NOT_FOUND");
      touch(context, { sessionId: turn.sessionId, turnId: turn.turnId });
      return { turn };
    },

    resumeTurn(request, context) {
      return resume(request, { context, ports });
    },

    async cancelTurn(request, context) {
      const ref = await refOf(request.turnId, { context, ports });
      const turn = await ports.store.stopTurn(ref, FinishReason.CANCELLED);
      if (turn === undefined) throw new Failure("TURN_NOT_FOUND");
      touch(context, { sessionId: turn.sessionId, turnId: turn.turnId });
      return { turn };
    },

    async previewChat(request, context) {
      const turn = turnRequestOf(request, { context, ports });
      const preview = await previewTurn(turn, ports.preview);
      const { refusal } = preview;
      return {
        admitted: refusal === undefined,
        ...(refusal === undefined ? {} : { denial: denialOf(refusal) }),
        estimatedPromptTokens: BigInt(preview.promptTokens),
        maxCostMicroUsd: preview.maxCostMicroUsd,
        headroom: [...preview.headroom],
      };
    },
  };
}

function denialOf({ reason }: Failure) {
  return { reason, message: errorTable[reason].message };
}

/** Starts a turn, or finds it by its idempotency key, and reads it to its end. */
async function* runTurn(
  request: ChatRequest | StreamChatRequest,
  { context, ports }: { context: HandlerContext; ports: ChatHandlerPorts },
): AsyncGenerator<StreamChatResponse, void> {
  const arrivedMs = performance.now();
  const wanted = turnRequestOf(request, { context, ports });
  const mayOutliveCall = ports.defaultOnDisconnect === OnDisconnect.CONTINUE;
  if (request.onDisconnect === OnDisconnect.CONTINUE && !mayOutliveCall) throw new Failure("CONTINUE_NOT_POSSIBLE");
  const { turn, waited } = yield* admitted(wanted, { context, ports });
  const { ref, begun } = turn;
  context.values.get(turnExtrasKey).onAdmitted?.(turn);
  touch(context, { sessionId: ref.sessionId, turnId: ref.turnId });
  const running = begun?.running;
  // Too late for a call that has waited: its headers went out with its place in the queue.
  if (begun !== undefined) tellVersion(context, begun.sessionVersion);
  // Only the call that began a turn ends it by going away.
  const endsWithCall = running !== undefined && wanted.endsWithCall;

  let silent = running !== undefined && !waited;
  let done = false;
  try {
    const reading = {
      ref,
      afterSequence: 0n,
      ...(begun === undefined ? {} : { head: [begun.firstEntry], lost: begun.running.lost }),
    };
    for await (const response of read(reading, { endsWithCall, context, ports })) {
      if (silent && response.event.case === "textDelta") {
        silent = false;
        ports.firstText((performance.now() - arrivedMs) / 1_000);
      }
      done ||= response.event.case === "turnCompleted";
      yield response;
    }
  } finally {
    // A turn that this process lost goes on elsewhere, unless its caller is gone too.
    if (!done && endsWithCall && (context.signal.aborted || !running.lost.aborted)) {
      const late = context.signal.aborted && endOfCall(context).reason === "DEADLINE_EXCEEDED";
      running.stop(late ? FinishReason.DEADLINE : FinishReason.CANCELLED);
    }
  }
}

/** Reads a turn from where a caller stopped reading. */
async function* resume(
  { turnId, afterSequence }: ResumeTurnRequest,
  { context, ports }: { context: HandlerContext; ports: ChatHandlerPorts },
): AsyncGenerator<ResumeTurnResponse, void> {
  checkAfterSequence(afterSequence);
  const ref = await refOf(turnId, { context, ports });
  const turn = await ports.store.getTurn(ref);
  if (turn === undefined) throw new Failure("TURN_NOT_FOUND");
  touch(context, { sessionId: ref.sessionId, turnId });
  const { lastSequence } = turn;
  const finished = turn.state === TurnState.FINISHED;
  if (finished && afterSequence > lastSequence) throw beyondEnd(lastSequence);
  // Who has read all gets nothing but the end's status, and the last entry says which.
  const from = finished && afterSequence === lastSequence ? lastSequence - 1n : afterSequence;
  // From a place that the turn has not come to yet: it may end before.
  const reading = { ref, afterSequence: from < lastSequence ? from : lastSequence };
  for await (const { sequence, event } of read(reading, { endsWithCall: false, context, ports })) {
    if (event.case === "turnCompleted" && sequence < afterSequence) throw beyondEnd(sequence);
    if (sequence === 0n || sequence > afterSequence) yield create(ResumeTurnResponseSchema, { sequence, event });
  }
}

/** The refusal of a cursor behind a turn's last entry. */
function beyondEnd(newest: bigint): Failure {
  const oldest = newest - BigInt(MAX_LOG_EVENTS) + 1n;
  return new Failure("CURSOR_OUT_OF_RANGE", {
    metadata: { oldest_sequence: String(oldest < 1n ? 1n : oldest), newest_sequence: String(newest) },
  });
}

/** Reads a turn's log for a caller. A call that ends before the turn does says where to read on. */
async function* read(
  { ref, ...reading }: Pick<Parameters<typeof tailTurn>[0], "ref" | "afterSequence" | "head" | "lost">,
  { endsWithCall, context, ports }: { endsWithCall: boolean; context: HandlerContext; ports: ChatHandlerPorts },
): AsyncGenerator<StreamChatResponse, void> {
  let lastSequence = reading.afterSequence;
  let done = false;
  try {
    const { store, leaving } = ports;
    for await (const item of tailTurn({ ...reading, ref, store, leaving, signal: context.signal })) {
      for (const response of responsesOf(item)) {
        done ||= response.event.case === "turnCompleted";
        lastSequence = response.sequence || lastSequence;
        yield response;
      }
    }
  } catch (error) {
    if (done) throw error;
    const cursor = { turnId: ref.turnId, lastSequence };
    if (!context.signal.aborted) throw mayGoOn(error) ? withCursor(error, cursor) : error;
    const ended = endOfCall(context);
    // A turn that ends with its call needs no cursor to read on from.
    throw endsWithCall ? ended : withCursor(ended, cursor);
  }
}

/** The turn that an id names, if it is there for this caller: of its tenant and, where the credentials prove a user, that user's. */
async function refOf(
  turnId: string,
  { context, ports }: { context: HandlerContext; ports: ChatHandlerPorts },
): Promise<TurnRef> {
  const { principal } = callContextOf(context);
  const ref = parseTurnId(turnId);
  if (ref === undefined || ref.tenant !== principal.tenant) throw new Failure("TURN_NOT_FOUND");
  if (principal.userId !== undefined && (await ports.store.getSession(ref))?.userId !== principal.userId) {
    throw new Failure("TURN_NOT_FOUND");
  }
  return ref;
}

/** Whether a turn that cannot be read here now may still be read, here or elsewhere. */
function mayGoOn(error: unknown): boolean {
  if (!(error instanceof Failure)) return true;
  return !["SESSION_DELETED", "TURN_NOT_FOUND", "TURN_LOG_TRIMMED"].includes(error.reason);
}

/** Admits the turn; tells the caller of its place while it waits. */
async function* admitted(
  wanted: TurnRequest,
  { context, ports }: { context: HandlerContext; ports: ChatHandlerPorts },
): AsyncGenerator<StreamChatResponse, { turn: AdmittedTurn; waited: boolean }> {
  const admission = admitTurn(wanted, { ports: ports.admission, signal: context.signal });
  try {
    let waited = false;
    for (;;) {
      const step = await admission.next();
      if (step.done) return { turn: step.value, waited };
      waited = true;
      yield create(StreamChatResponseSchema, { event: { case: "turnQueued", value: { position: step.value } } });
    }
  } catch (error) {
    throw context.signal.aborted && error === context.signal.reason ? endOfCall(context) : error;
  } finally {
    // A caller that goes away while it waits gives up its place.
    await admission.return(undefined as never);
  }
}

/** The turn that a request asks for, its fields checked, on behalf of whom the caller may act for. */
function turnRequestOf(
  request: ChatRequest | StreamChatRequest | PreviewChatRequest,
  { context, ports }: { context: HandlerContext; ports: ChatHandlerPorts },
): TurnRequest {
  const { principal } = callContextOf(context);
  const userId = actingUser(principal, request.userId);
  const useCase = allowedUseCase(principal, request.useCase);
  checkChatRequest(request, { maxTokens: ports.maxTokens, userId });
  const { sessionId, message, agentTeam, maxTokens, metadata, idempotencyKey, approvals } = request;
  if (sessionId !== "") touch(context, { sessionId });
  const { onAdmitted: _, ...extras } = context.values.get(turnExtrasKey);
  return {
    tenant: principal.tenant,
    team: principal.team,
    userId,
    useCase,
    sessionId,
    message,
    agentTeam,
    maxTokens,
    idempotencyKey,
    onBusy: ON_BUSY[request.onBusy],
    endsWithCall: cancelsOnDisconnect(request, ports),
    ...(metadata === undefined ? {} : { metadata }),
    // Absent where there are none: requests of older releases have the same digest then.
    ...(approvals.length === 0 ? {} : { approvals: approvals.map(asApproval) }),
    ...extras,
  };
}

function asApproval({ toolCallId, approved, comment }: ToolApproval) {
  return { toolCallId, approved, comment };
}

const ON_BUSY = {
  [OnBusy.UNSPECIFIED]: "enqueue",
  [OnBusy.ENQUEUE]: "enqueue",
  [OnBusy.REJECT]: "reject",
  [OnBusy.INTERRUPT]: "interrupt",
  [OnBusy.ROLLBACK]: "rollback",
} as const;

function responsesOf(item: TailItem): StreamChatResponse[] {
  if (item.case === "heartbeat") return [create(StreamChatResponseSchema, { event: { case: "heartbeat", value: {} } })];
  return item.entries.flatMap(({ event }) => (event === undefined ? [] : [event]));
}

function cancelsOnDisconnect({ onDisconnect }: Pick<ChatRequest, "onDisconnect">, ports: ChatHandlerPorts): boolean {
  const wanted = onDisconnect || ports.defaultOnDisconnect;
  return wanted === OnDisconnect.CANCEL;
}

/** A client that goes away so shortly before its deadline, in milliseconds, does so because of it: its clock ran first. */
const DEADLINE_SLACK_MS = 100;

/** Why Connect ended a call: its deadline, or its client. */
function endOfCall({ signal, timeoutMs }: Pick<HandlerContext, "signal" | "timeoutMs">): Failure {
  const leftMs = timeoutMs() ?? Number.POSITIVE_INFINITY;
  const late = ConnectError.from(signal.reason).code === Code.DeadlineExceeded || leftMs < DEADLINE_SLACK_MS;
  return new Failure(late ? "DEADLINE_EXCEEDED" : "CALL_CANCELLED", {}, { cause: signal.reason });
}

/** The failure, with where to read on. */
function withCursor(error: unknown, cursor: { turnId: string; lastSequence: bigint }): Failure {
  if (error instanceof Failure) return new Failure(error.reason, { ...error.facts, cursor }, { cause: error });
  return new Failure("INTERNAL", { cursor }, { cause: error });
}
