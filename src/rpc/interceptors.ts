import type { Interceptor } from "@connectrpc/connect";
import type { Authenticator } from "../identity/authenticator.ts";
import type { Logger } from "../platform/logger-port.ts";
import { authenticateCalls } from "./authenticate-interceptor.ts";
import { observeCalls } from "./call-observer.ts";
import { logRefused, observeLog } from "./log-observer.ts";
import { countRefused, observeMetrics, type RequestMetrics } from "./metrics-observer.ts";
import type { RefusedCall } from "./request-gate.ts";
import { observeTrace } from "./trace-observer.ts";

/**
 * What stands around every RPC, from the outside in:
 *
 * 1. request gate (`request-gate.ts`, of the router itself): request id; Connect's own errors
 * 2. trace: the span, so that all below it, and the log line, are in it
 * 3. log: one line at the end
 * 4. metrics: one count at the end
 * 5. errors: what the handler threw becomes what the caller gets, before 2 to 4 see it
 * 6. identity: who calls, and whether its roles are enough
 */
export function createInterceptors({
  logger,
  metrics,
  authenticate,
}: {
  logger: Logger;
  metrics: RequestMetrics;
  /** Absent: AUTH_MODE=none, in which everyone is anyone, and calls pay for no layer. */
  authenticate?: Authenticator | undefined;
}): Interceptor[] {
  const observe = observeCalls([observeTrace(), observeLog(logger), observeMetrics(metrics)]);
  return authenticate === undefined ? [observe] : [observe, authenticateCalls(authenticate)];
}

/** Logs and counts the calls that could not be read, which only the gate sees: `onRefused` of the RPC handlers. */
export function observeRefused({ logger, metrics }: { logger: Logger; metrics: RequestMetrics }) {
  return (call: RefusedCall): void => {
    logRefused(logger, call);
    countRefused(metrics, call);
  };
}
