import type { Interceptor } from "@connectrpc/connect";
import type { Logger } from "../platform/logger-port.ts";
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
 *
 * `onRefused` is for {@link createRpcHandler}: the calls that only the gate sees are logged and counted as well.
 */
export function createInterceptors({ logger, metrics }: { logger: Logger; metrics: RequestMetrics }): {
  interceptors: Interceptor[];
  onRefused(call: RefusedCall): void;
} {
  return {
    interceptors: [observeCalls([observeTrace(), observeLog(logger), observeMetrics(metrics)])],
    onRefused(call) {
      logRefused(logger, call);
      countRefused(metrics, call);
    },
  };
}
