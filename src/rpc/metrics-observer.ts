import type { ConnectError } from "@connectrpc/connect";
import { codeToString } from "@connectrpc/connect/protocol-connect";
import { Failure } from "../failure.ts";
import type { CallObserver } from "./call-observer.ts";
import type { RefusedCall } from "./request-gate.ts";

/** What is counted of RPCs. */
export interface RequestMetrics {
  requestEnded(request: { readonly rpc: string; readonly code: string; readonly seconds: number }): void;
  /** What is stored could not be read: another release wrote it. Absent: nobody counts that. */
  unreadable?(): void;
}

/**
 * Counts every RPC at its end: `parley_requests_total{rpc,code}`, `parley_request_duration_seconds{rpc}` and, of a refusal
 * for a stored format, `parley_unreadable_sessions_total`.
 */
export function observeMetrics(metrics: RequestMetrics): CallObserver {
  return ({ method }) => ({
    ended({ code, error, seconds }) {
      metrics.requestEnded({ rpc: method.name, code, seconds });
      if (isUnreadable(error)) metrics.unreadable?.();
    },
  });
}

/** Counts a call that could not be read. Next to no time was spent on it. */
export function countRefused(metrics: RequestMetrics, { rpc, error }: RefusedCall): void {
  metrics.requestEnded({ rpc, code: codeToString(error.code), seconds: 0 });
}

function isUnreadable(error: ConnectError | undefined): boolean {
  return error?.cause instanceof Failure && error.cause.reason === "STORED_FORMAT_UNKNOWN";
}
