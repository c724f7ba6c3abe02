import { codeToString } from "@connectrpc/connect/protocol-connect";
import type { CallObserver } from "./call-observer.ts";
import type { RefusedCall } from "./request-gate.ts";

/** What is counted of RPCs. */
export interface RequestMetrics {
  requestEnded(request: { readonly rpc: string; readonly code: string; readonly seconds: number }): void;
}

/** Counts every RPC at its end: `parley_requests_total{rpc,code}` and `parley_request_duration_seconds{rpc}`. */
export function observeMetrics(metrics: RequestMetrics): CallObserver {
  return ({ method }) => ({
    ended: ({ code, seconds }) => metrics.requestEnded({ rpc: method.name, code, seconds }),
  });
}

/** Counts a call that could not be read. Next to no time was spent on it. */
export function countRefused(metrics: RequestMetrics, { rpc, error }: RefusedCall): void {
  metrics.requestEnded({ rpc, code: codeToString(error.code), seconds: 0 });
}
