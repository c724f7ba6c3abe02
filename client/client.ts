import { create, type MessageInitShape, toBinary, toJson } from "@bufbuild/protobuf";
import {
  type CallOptions,
  type Client,
  Code,
  ConnectError,
  createClient,
  type Interceptor,
  type Transport,
} from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import {
  type ChatResponse,
  ChatResponseSchema,
  ChatService,
  StreamChatRequestSchema,
} from "../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../gen/parley/chat/v1/session_service_pb.js";
import { isConnectionLost, reasonOf } from "./next-step.ts";
import { type RetryOptions, retried } from "./retries.ts";
import { readTurn, type StreamOptions, type TurnEvent } from "./turn-reader.ts";

export { Code, ConnectError } from "@connectrpc/connect";
export {
  BadRequestSchema,
  ErrorInfoSchema,
  QuotaFailureSchema,
  RetryInfoSchema,
} from "../gen/google/rpc/error_details_pb.js";
export { type ChatResponse, OnBusy, OnDisconnect } from "../gen/parley/chat/v1/chat_service_pb.js";
export { FinishReason, TurnCursorSchema, TurnState } from "../gen/parley/chat/v1/turn_pb.js";
export { isConnectionLost, type RetryOptions, reasonOf, type StreamOptions, type TurnEvent };

/** A turn that is asked for: the fields of StreamChatRequest, in camelCase. Without an `idempotencyKey` it gets a new one. */
export type TurnRequest = MessageInitShape<typeof StreamChatRequestSchema>;

/** Where the service is. */
export type ParleyTarget =
  | {
      /** Such as `https://parley.example.com`. Spoken to by Connect over `fetch`. */
      readonly baseUrl: string;
      /**
       * API key or token, sent as `authorization: Bearer …`. A function is asked before each attempt; if it throws, the call
       * ends with UNAUTHENTICATED, what it threw being the cause. Default: none is sent.
       */
      readonly token?: string | (() => string | Promise<string>);
    }
  | {
      /** Another way to call it, such as connect-node's gRPC transport. */
      readonly transport: Transport;
    };

/**
 * A service's caller. Every error that its methods throw is a `ConnectError`; {@link reasonOf} has its reason, as
 * docs/errors.md lists them.
 */
export interface Parley {
  /**
   * Runs a turn and resolves to its reply, over as many calls as that takes: a call that breaks is made again with the same
   * `idempotencyKey`, a turn that has begun is read on, and a refusal with a `RetryInfo` is waited for as long as it asks.
   * One turn is run, and paid for, however many calls there are.
   *
   * Rejects with the turn's status if it failed (it is not run anew: whoever wants that sends a new request); with a
   * refusal that waiting does not help, or not within the options; and with DEADLINE_EXCEEDED or CANCELED as the options
   * say. Where a `TurnCursor` is among the details the turn goes on: {@link resume} reads it.
   *
   * `processingTimeMs` is the time that the caller waited, in milliseconds.
   */
  chat(request: TurnRequest, options?: RetryOptions): Promise<ChatResponse>;
  /**
   * Runs a turn and yields its events, in order: those of its log (sequence 1, 2, 3 …) once each, whatever happens to
   * the connection, and `turnQueued` (sequence 0) while it waits for others of its session. Text deltas after a
   * `stepRestarted.discardTextAfterSequence` are void: they were said by a replica that was lost, and are said anew.
   *
   * Throws as {@link chat} does, after `turnCompleted` if the turn failed. To stop reading does not end the turn, unless
   * it was asked for with `OnDisconnect.CANCEL`; such a turn ends with its connection, too.
   */
  stream(request: TurnRequest, options?: StreamOptions): AsyncGenerator<TurnEvent, void, undefined>;
  /**
   * Yields the events of a turn that is there, after a sequence (default 0: all), then those that come, as {@link stream}
   * does. Throws NOT_FOUND where it is not there any more, and OUT_OF_RANGE for a sequence that is not in its log.
   */
  resume(
    turn: { readonly turnId: string; readonly afterSequence?: bigint },
    options?: StreamOptions,
  ): AsyncGenerator<TurnEvent, void, undefined>;
  /**
   * Makes another call, which may be made twice, until it comes through: `retry((call) => sessions.getSession({ sessionId }, call))`.
   * Rejects as {@link chat} does.
   */
  retry<T>(call: (options: CallOptions) => Promise<T>, options?: RetryOptions): Promise<T>;
  /** The generated client of turns: one call each, nothing is retried. */
  readonly turns: Client<typeof ChatService>;
  /** The generated client of sessions: one call each, nothing is retried. */
  readonly sessions: Client<typeof SessionService>;
}

/** Makes a service's caller, for Node and browsers. It opens nothing, and need not be closed. */
export function createParley(target: ParleyTarget): Parley {
  const transport = "transport" in target ? target.transport : transportOf(target);
  const turns = createClient(ChatService, transport);

  const stream = (request: TurnRequest, options: StreamOptions = {}): AsyncGenerator<TurnEvent, void, undefined> => {
    const keyed = create(StreamChatRequestSchema, request);
    keyed.idempotencyKey ||= newIdempotencyKey();
    // What cannot be sent is a mistake of the caller's, to be thrown at once and not to be tried again.
    toBinary(StreamChatRequestSchema, keyed);
    // JSON has less: no NaN.
    toJson(StreamChatRequestSchema, keyed);
    return readTurn(turns, { request: keyed }, options);
  };

  return {
    async chat(request, options) {
      const startMs = performance.now();
      const reply = create(ChatResponseSchema);
      for await (const { event } of stream(request, { ...options, skipTrimmed: true })) {
        switch (event.case) {
          case "turnStarted":
            reply.sessionId = event.value.sessionId;
            reply.turnId = event.value.turnId;
            break;
          case "messageCompleted":
            reply.response = event.value.content;
            break;
          case "turnCompleted":
            reply.finishReason = event.value.finishReason;
            reply.costMicroUsd = event.value.costMicroUsd;
            if (event.value.tokenUsage !== undefined) reply.tokenUsage = event.value.tokenUsage;
        }
      }
      reply.processingTimeMs = BigInt(Math.round(performance.now() - startMs));
      return reply;
    },
    stream,
    resume: ({ turnId, afterSequence = 0n }, options = {}) => readTurn(turns, { turnId, afterSequence }, options),
    retry: (call, options = {}) => retried(call, options),
    turns,
    sessions: createClient(SessionService, transport),
  };
}

function transportOf({ baseUrl, token }: Extract<ParleyTarget, { baseUrl: string }>): Transport {
  if (token === undefined) return createConnectTransport({ baseUrl });
  const withToken: Interceptor = (next) => async (call) => {
    try {
      const sent = typeof token === "string" ? token : await untilAborted(token(), call.signal);
      call.header.set("authorization", `Bearer ${sent}`);
    } catch (error) {
      throw new ConnectError("There is no token to send.", Code.Unauthenticated, undefined, undefined, error);
    }
    return next(call);
  };
  return createConnectTransport({ baseUrl, interceptors: [withToken] });
}

/** Who makes a token knows nothing of the call's end: the call does not wait for longer. */
async function untilAborted<T>(value: T | Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const done = new AbortController();
  const aborted = new Promise<never>((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { signal: done.signal });
  });
  try {
    return await Promise.race([value, aborted]);
  } finally {
    done.abort();
  }
}

/** A key that nobody else has: 128 random bits in hexadecimal. `crypto.randomUUID` is there on secure origins only. */
export function newIdempotencyKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
