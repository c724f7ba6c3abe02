import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import type { UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import type { AccountStore } from "../accounts/account-store.ts";
import { Failure } from "../failure.ts";
import { type Repetition, repeat } from "../platform/repeat.ts";
import type { TurnStore } from "./ports.ts";
import { parseTurnId } from "./turn-id.ts";

/** Between two looks for calls that nobody settled, in milliseconds. */
const LOOK_MS = 2_000;

/** Entries read from the store at a time. */
const READ_LIMIT = 500;

/**
 * Has calls charged whose owner did not settle them in time, until it is stopped: what their turn's log says that they used, for the owner may have
 * been lost after it had written that, else in full.
 */
export function startLostCalls({
  accounts,
  store,
  onError,
}: {
  accounts: Pick<AccountStore, "expired">;
  store: Pick<TurnStore, "readLog">;
  onError(error: unknown): void;
}): Repetition {
  return repeat(
    async () => {
      await accounts.expired((lost) => loggedRow(lost, store));
    },
    { everyMs: LOOK_MS, onError },
  );
}

/**
 * The call's row as its turn's log has it; undefined: the log does not know it, or is gone. STORE_UNAVAILABLE: ask again, for
 * nothing is looked at twice that has been charged.
 */
async function loggedRow(
  { turnId, recordId }: UsageRecord,
  store: Pick<TurnStore, "readLog">,
): Promise<UsageRecord | undefined> {
  const ref = parseTurnId(turnId);
  if (ref === undefined) return undefined;
  for (let after = 0n; ; ) {
    const page = await store.readLog(ref, after, READ_LIMIT).catch(unlessAway);
    const found = page?.find(({ usageRecord }) => usageRecord?.recordId === recordId)?.usageRecord;
    // A takeover writes down what it charges in full: that may still be corrected.
    if (found !== undefined) return found.usageSource === UsageSource.HOLD_MAXIMUM ? undefined : found;
    const last = page?.at(-1)?.event?.sequence;
    if (last === undefined) return undefined;
    after = last;
  }
}

function unlessAway(error: unknown): undefined {
  if (error instanceof Failure && error.reason === "STORE_UNAVAILABLE") throw error;
}
