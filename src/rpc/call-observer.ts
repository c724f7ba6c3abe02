import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError, type Interceptor, type StreamResponse } from "@connectrpc/connect";
import { codeToString } from "@connectrpc/connect/protocol-connect";
import { Failure } from "../failure.ts";
import { type CallContext, callContextKey, type TouchedIds, touchedIdsKey } from "./call-context.ts";
import { toConnectError } from "./error-mapping.ts";

/** An RPC that begins. */
export interface ObservedCall {
  readonly method: DescMethod;
  readonly requestHeader: Headers;
  readonly context: CallContext;
  /** What the handler has noted so far. */
  touched(): TouchedIds;
}

/** How an RPC ended; a stream with its last message. */
export interface CallOutcome {
  /** `ok`, or the status code in lower_snake, as Connect spells it: `invalid_argument`, `canceled`. */
  readonly code: string;
  /** What the caller gets; its cause is what happened. */
  readonly error?: ConnectError;
  readonly seconds: number;
}

/**
 * Told when each RPC begins. What comes back is told, once, when it has ended, whether or not it is a stream; `within`
 * runs the handler, and each step of a stream, in a context of its choice. Must not throw.
 */
export type CallObserver = (call: ObservedCall) => CallObservation;

export interface CallObservation {
  ended(outcome: CallOutcome): void;
  within?<Result>(work: () => Result): Result;
}

/**
 * The one interceptor: maps errors and tells the observers, in their order at the begin, in the reverse order at the end
 * (as layers would be). One layer for all of them, because a stream pays for each layer with a promise per message.
 */
export function observeCalls(observers: readonly CallObserver[]): Interceptor {
  return (next) => async (request) => {
    const startedMs = performance.now();
    const call: ObservedCall = {
      method: request.method,
      requestHeader: request.header,
      context: request.contextValues.get(callContextKey),
      touched: () => request.contextValues.get(touchedIdsKey),
    };
    const observations = observers.map((observer) => observer(call));
    const within = nested(observations);
    let over = false;
    const end = (error?: ConnectError): void => {
      if (over) return;
      over = true;
      const seconds = (performance.now() - startedMs) / 1_000;
      const outcome: CallOutcome =
        error === undefined ? { code: "ok", seconds } : { code: codeToString(error.code), error, seconds };
      within(() => {
        for (const observation of observations.toReversed()) observation.ended(outcome);
      });
    };
    const fail = (thrown: unknown): ConnectError => {
      const error = toConnectError(cancelled(thrown, request.signal));
      end(error);
      return error;
    };
    try {
      const response = await within(() => next(request));
      if (response.stream) return { ...response, message: observed(response.message, { within, end, fail }) };
      end();
      return response;
    } catch (thrown) {
      throw fail(thrown);
    }
  };
}

type Messages = StreamResponse["message"];

/** The same messages. Written out instead of a generator: a generator costs two more promises per message. */
function observed(
  messages: Messages,
  {
    within,
    end,
    fail,
  }: {
    within: <Result>(work: () => Result) => Result;
    end(error?: ConnectError): void;
    fail(thrown: unknown): ConnectError;
  },
): Messages {
  return {
    [Symbol.asyncIterator]() {
      const iterator = messages[Symbol.asyncIterator]();
      const settle = <Result extends { done?: boolean | undefined }>(result: Result): Result => {
        if (result.done === true) end();
        return result;
      };
      const reject = (thrown: unknown): never => {
        throw fail(thrown);
      };
      return {
        next: () => within(() => iterator.next()).then(settle, reject),
        // Connect calls these when the answer can no longer be written: the caller is gone.
        return: (value?: unknown) => {
          end(callerGone());
          return within(async () => iterator.return?.(value) ?? { done: true as const, value });
        },
        throw: (reason?: unknown) => {
          end(callerGone());
          return within(async () => iterator.throw?.(reason) ?? Promise.reject(reason));
        },
      };
    },
  };
}

function callerGone(): ConnectError {
  return toConnectError(new Failure("CALL_CANCELLED"));
}

/** A handler that gives up because its caller is gone throws the signal's reason; that is no defect. */
function cancelled(thrown: unknown, signal: AbortSignal): unknown {
  if (!signal.aborted || thrown !== signal.reason || thrown instanceof ConnectError) return thrown;
  return new Failure("CALL_CANCELLED", {}, { cause: thrown });
}

/** All `within`s around each other, the first outermost; where there is none, nothing is added. */
function nested(observations: readonly CallObservation[]): <Result>(work: () => Result) => Result {
  let run = <Result>(work: () => Result): Result => work();
  for (const { within } of observations.toReversed()) {
    if (within === undefined) continue;
    const inner = run;
    run = (work) => within(() => inner(work));
  }
  return run;
}

/** Codes that say that something is wrong with us, not with the call. */
export function isOurFault(code: Code): boolean {
  return code === Code.Internal || code === Code.Unknown || code === Code.DataLoss || code === Code.Unavailable;
}
