import type { ConnectRouterOptions } from "@connectrpc/connect";

/** Limits of every RPC, whatever the runtime. */
export const routerLimits = {
  /** Largest request message in bytes, decompressed: metadata and message at their bounds need a tenth of it. */
  readMaxBytes: 1_024 * 1_024,
  /** Longest deadline that a client may ask for, in milliseconds: 20 rounds of 120 s each end within it. */
  maxTimeoutMs: 3_600_000,
} as const satisfies Partial<ConnectRouterOptions>;
