import type { JsonValue } from "@bufbuild/protobuf";
import { Failure, type FailureReason } from "../failure.ts";
import { sleep } from "../platform/sleep.ts";
import type { KeyClaim, KeyState, KeyStore } from "./ports.ts";

/** A claim that nobody has admitted yet is looked at again after this many milliseconds, at most so often: then its owner is lost. */
const LOOK = { everyMs: 25, times: 40 } as const;

/** Which turn a request with an idempotency key is, and what is still to be done for it. */
export interface KeyedTurn {
  readonly claim: KeyClaim;
  readonly state: Exclude<KeyState, "claimed"> | "abandoned";
}

/**
 * Finds the turn of a request with a key, or claims the key for a new one. `new` and `abandoned`: the caller has to admit
 * it; `admitted`: it need only be begun; `begun`: it is to be read. IDEMPOTENCY_KEY_REUSED: the key is another request's.
 */
export async function claimTurn(
  wanted: KeyClaim,
  { store, signal }: { store: KeyStore; signal: AbortSignal },
): Promise<KeyedTurn> {
  for (let look = 0; ; look++) {
    const { turnId, requestHash, state } = await store.claimKey(wanted);
    if (requestHash !== wanted.requestHash) throw new Failure("IDEMPOTENCY_KEY_REUSED");
    const claim = { ...wanted, turnId };
    if (state !== "claimed") return { claim, state };
    // Somebody else is admitting it, in the very next moments.
    if (look === LOOK.times) return { claim, state: "abandoned" };
    signal.throwIfAborted();
    await sleep(LOOK.everyMs);
  }
}

/** Refusals after which nothing of a turn is there: who repeats the request asks anew. */
export function isFinal(error: unknown): boolean {
  return error instanceof Failure && !PASSING.has(error.reason);
}

/** A turn that ended so in its admission may have begun, or may yet: the claim stays. */
const PASSING: ReadonlySet<FailureReason> = new Set([
  "STORE_UNAVAILABLE",
  "DRAINING",
  "CALL_CANCELLED",
  "DEADLINE_EXCEEDED",
]);

/** A digest of a request: the same for the same fields and values, in whatever order its maps came. */
export async function requestHashOf(fields: JsonValue): Promise<string> {
  const bytes = new TextEncoder().encode(JSON.stringify(inOrder(fields)));
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

function inOrder(value: JsonValue): JsonValue {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(inOrder);
  const entries = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([name, inner]) => [name, inOrder(inner)]));
}
