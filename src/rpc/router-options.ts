import type { ConnectRouterOptions, Interceptor } from "@connectrpc/connect";
import { createRequestGate, type RefusedCall } from "./request-gate.ts";

/** Limits of every RPC, whatever the runtime. */
const routerLimits = {
  /** Largest request message in bytes, decompressed: metadata and message at their bounds need a tenth of it. */
  readMaxBytes: 1_024 * 1_024,
  /** Longest deadline that a client may ask for, in milliseconds: 20 rounds of 120 s each end within it. */
  maxTimeoutMs: 3_600_000,
} as const satisfies Partial<ConnectRouterOptions>;

/** What the routers of all runtimes have in common: limits, the request gate, and UTF-8 that is checked. */
export function routerOptions({
  interceptors,
  onRefused,
}: {
  interceptors: Interceptor[];
  /** Told of each call that could not be read, which no interceptor sees. */
  onRefused?: ((call: RefusedCall) => void) | undefined;
}): ConnectRouterOptions {
  // Connect's own decoder puts U+FFFD in the place of bytes that are no UTF-8. Strings in binary messages are checked
  // by protobuf-es, as proto3 demands.
  const jsonOptions: ConnectRouterOptions["jsonOptions"] & JsonTextDecoder = {
    textDecoder: new TextDecoder("utf-8", { fatal: true }),
  };
  return { ...routerLimits, interceptors, jsonOptions, requestGate: createRequestGate({ onRefused }) };
}

/** Connect's JSON serialisation takes its decoder from here; the options' type doesn't say so (a test does). */
interface JsonTextDecoder {
  readonly textDecoder: TextDecoder;
}
