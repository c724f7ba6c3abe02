import type { Logger } from "../src/platform/logger-port.ts";
import { sleep } from "../src/platform/sleep.ts";
import type { Applied, LedgerEntry, Rollups } from "./rollups.ts";

/** Keeps the rollups up with the ledger. */
export interface LedgerConsumer {
  /** Applies what an account's ledger has now, if that can be done in a while; a reader then sees what it wrote. */
  catchUp(tenant: string): Promise<void>;
  /** Lets the batch under way end, and takes no other. */
  stop(): Promise<void>;
}

export interface LedgerConsumerOptions {
  readonly rollups: Rollups;
  /** Told of rows that this process applied, each once; in the order in which they were. */
  onApplied?(tenant: string, applied: Applied): void;
  readonly logger: Logger;
  /**
   * Rows of one batch. Default 50: of as many users, the script that applies them keeps Redis busy for two to three
   * milliseconds (`bench/ledger.ts`), which a turn does not feel. Larger batches go faster, and are felt.
   */
  readonly batchRows?: number;
  /**
   * An account is looked at again after this long when it had nothing new, in milliseconds, and after twice as long each time,
   * up to {@link IDLE_POLL_MS}: many quiet accounts cost little. Default 200.
   */
  readonly pollMs?: number;
}

/** The longest that a quiet account is left alone, in milliseconds: what it then has is late by so much. */
const IDLE_POLL_MS = 2_000;

/** New accounts are looked for this often, in milliseconds. */
const TENANTS_MS = 2_000;

/** After a failure the next try comes after this long, in milliseconds. */
const RETRY_MS = 500;

/** A reader waits this long at most for the rollups to be brought up to date, in milliseconds. */
const CATCH_UP_MS = 1_000;

/** While it waits for other sidecars it looks this often, in milliseconds. */
const OTHERS_POLL_MS = 10;

/** Begins at once, and goes on for ever: a store that fails is tried again. */
export function startLedgerConsumer({
  rollups,
  onApplied = () => undefined,
  logger,
  batchRows = 50,
  pollMs = 200,
}: LedgerConsumerOptions): LedgerConsumer {
  const stopping = new AbortController();
  /** What was taken and not applied, by account: it is tried again before more is taken. */
  const due = new Map<string, LedgerEntry[]>();
  const working = new Map<string, Promise<number>>();

  const applyNext = async (tenant: string): Promise<number> => {
    const entries = due.get(tenant) ?? (await rollups.take(tenant, batchRows));
    if (entries.length === 0) return 0;
    due.set(tenant, entries);
    const applied = await rollups.apply(tenant, entries);
    due.delete(tenant);
    if (applied.entries.length > 0) onApplied(tenant, applied);
    return entries.length;
  };
  /** One batch of an account at a time. Returns how many rows there were. */
  const step = (tenant: string): Promise<number> => {
    const before = working.get(tenant)?.catch(() => 0) ?? Promise.resolve(0);
    const next = before.then(() => applyNext(tenant));
    working.set(tenant, next);
    const forget = (): void => {
      if (working.get(tenant) === next) working.delete(tenant);
    };
    next.then(forget, forget);
    return next;
  };

  /** When accounts that had nothing new are looked at again. */
  const quiet = new Map<string, { readonly untilMs: number; readonly waitMs: number }>();
  const noteRows = (tenant: string, rows: number): void => {
    const waitMs = Math.min(IDLE_POLL_MS, 2 * (quiet.get(tenant)?.waitMs ?? pollMs / 2));
    if (rows > 0) quiet.delete(tenant);
    else quiet.set(tenant, { untilMs: performance.now() + waitMs, waitMs });
  };

  let failing = false;
  const run = async (): Promise<void> => {
    let tenants: readonly string[] = [];
    let listedMs = Number.NEGATIVE_INFINITY;
    while (!stopping.signal.aborted) {
      try {
        if (performance.now() - listedMs > TENANTS_MS) {
          tenants = await rollups.tenants();
          listedMs = performance.now();
        }
        let rows = 0;
        let problem: unknown;
        for (const tenant of tenants) {
          if (stopping.signal.aborted) return;
          if (performance.now() < (quiet.get(tenant)?.untilMs ?? 0)) continue;
          // One account that cannot be read holds up no other.
          const applied = await step(tenant).catch((error: unknown) => {
            problem = error;
            return 0;
          });
          noteRows(tenant, applied);
          rows += applied;
        }
        if (problem !== undefined) throw problem;
        if (failing) logger.info({}, "the ledger is followed again");
        failing = false;
        if (rows === 0) await pause(pollMs, stopping.signal);
      } catch (error) {
        if (!failing) logger.warn({ error }, "the ledger cannot be followed");
        failing = true;
        await pause(RETRY_MS, stopping.signal);
      }
    }
  };
  const running = run();

  return {
    async catchUp(tenant) {
      const startMs = performance.now();
      for (let passedMs = 0; passedMs < CATCH_UP_MS; passedMs = performance.now() - startMs) {
        if ((await step(tenant)) > 0) continue;
        // Others may have taken rows and not applied them yet. Those that came since do not matter.
        const { pending, lagMs } = await rollups.standing(tenant);
        if (pending === 0 || lagMs < performance.now() - startMs) return;
        await pause(OTHERS_POLL_MS, stopping.signal);
      }
    },
    async stop() {
      stopping.abort();
      await running;
      await Promise.allSettled(working.values());
      // Whoever cannot say farewell is missed after a while.
      await rollups.leave().catch(() => undefined);
    },
  };
}

/** Ends early, and in peace, when there is no more to wait for. */
async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, signal).catch(() => undefined);
}
