import { Code } from "@connectrpc/connect";
import { codeToString } from "@connectrpc/connect/protocol-connect";
import { Failure } from "../failure.ts";
import type { LogFacts, Logger } from "../platform/logger-port.ts";
import { type CallObserver, type CallOutcome, isOurFault } from "./call-observer.ts";
import type { RefusedCall } from "./request-gate.ts";

/**
 * One line per RPC at its end. What the caller did is `info`; what is our own fault is `warn`, and a defect `error` with
 * its type and stack. It is written within the call's trace, whose ids the logger adds. No message text is ever in it: an error's cause is logged as facts.
 */
export function observeLog(logger: Logger): CallObserver {
  return ({ method, context, touched }) => ({
    ended({ code, seconds, error }) {
      const { sessionId, turnId } = touched();
      const facts = {
        rpc: method.name,
        code,
        duration_ms: Math.round(seconds * 1e6) / 1e3,
        request_id: context.requestId,
        ...(sessionId === undefined ? {} : { session_id: sessionId }),
        ...(turnId === undefined ? {} : { turn_id: turnId }),
      };
      write(logger, facts, error);
    },
  });
}

/** The line of a call that could not be read. */
export function logRefused(logger: Logger, { rpc, requestId, error }: RefusedCall): void {
  write(logger, { rpc, code: codeToString(error.code), duration_ms: 0, request_id: requestId }, error);
}

function write(logger: Logger, facts: LogFacts, error: CallOutcome["error"]): void {
  const cause = error?.cause;
  const all = cause instanceof Failure ? { ...facts, reason: cause.reason } : facts;
  if (error?.code === Code.Internal) logger.error({ ...all, error: cause }, "rpc failed");
  else if (error !== undefined && isOurFault(error.code)) logger.warn(all, "rpc failed");
  else logger.info(all, "rpc ended");
}
