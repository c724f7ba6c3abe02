import type { UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import type { AccountStore } from "../accounts/account-store.ts";
import type { TurnStore } from "./ports.ts";
import { parseTurnId } from "./turn-id.ts";

/** Between two looks for calls that nobody settled, in milliseconds. */
const LOOK_MS = 2_000;

/** Entries read from the store at a time. */
const READ_LIMIT = 500;

/** Looks for model calls that were started and never settled, until it is stopped. */
export interface LostCalls {
  /** Looks no more; resolves when the last look is over. */
  stop(): Promise<void>;
}

/**
 * Has calls charged in full whose owner did not settle them in time, and corrected where their turn's log says what they
 * used: the owner may have been lost after it had written that.
 */
export function startLostCalls({
  accounts,
  store,
  onError,
}: {
  accounts: Pick<AccountStore, "expired" | "correct">;
  store: Pick<TurnStore, "readLog">;
  onError(error: unknown): void;
}): LostCalls {
  let stopped = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const look = async (): Promise<void> => {
    try {
      for (const row of await accounts.expired()) {
        const logged = await loggedRow(row, store);
        if (logged !== undefined) await accounts.correct(logged);
      }
    } catch (error) {
      onError(error);
    }
  };
  const next = (): void => {
    if (stopped) return;
    timer = setTimeout(() => {
      looking = look().finally(next);
    }, LOOK_MS);
  };
  let looking = look().finally(next);
  return {
    async stop() {
      stopped = true;
      clearTimeout(timer);
      await looking;
    },
  };
}

/** The call's row as its turn's log has it; undefined: the log does not have it, or is gone. */
async function loggedRow(
  { turnId, recordId }: UsageRecord,
  store: Pick<TurnStore, "readLog">,
): Promise<UsageRecord | undefined> {
  const ref = parseTurnId(turnId);
  if (ref === undefined) return undefined;
  for (let after = 0n; ; ) {
    const page = await store.readLog(ref, after, READ_LIMIT).catch(() => undefined);
    const found = page?.find(({ usageRecord }) => usageRecord?.recordId === recordId)?.usageRecord;
    const last = page?.at(-1)?.event?.sequence;
    if (found !== undefined || last === undefined) return found;
    after = last;
  }
}
