import { vi } from "vitest";

/** Resolves with what an assertion returns when it holds: a shared machine may be slow for a while. */
export function eventually<T>(assertion: () => T | Promise<T>, { timeout = 20_000 } = {}): Promise<T> {
  return vi.waitFor(assertion, { timeout });
}
