import type { AccountStore } from "../src/accounts/account-store.ts";
import { periodOf } from "../src/accounts/budget-periods.ts";
import type { Logger } from "../src/platform/logger-port.ts";
import type { CostMetrics } from "./cost-metrics.ts";
import type { Rollups } from "./rollups.ts";

/** Gauges are as old as this at most, in milliseconds: a third of a usual scrape interval. */
const WATCH_MS = 5_000;

/** A scrape waits so long for the store, in milliseconds: well below any scrape's timeout. */
const STANDING_MS = 500;

/** Keeps the gauges of all accounts. */
export interface AccountWatch {
  /**
   * Brings the gauges of the ledgers' lag up to date, for whoever reads them next: a lag comes and goes within less than
   * {@link WATCH_MS}, and what was true seconds ago would hide it. Never rejects, and waits for no store that hangs.
   */
  lookAtLedgers(): Promise<void>;
  /** Resolves when it has stopped. */
  stop(): Promise<void>;
}

/** Asks the store for what gauges say of all accounts, at once and then now and then. */
export function startAccountWatch({
  accounts,
  rollups,
  metrics,
  logger,
  everyMs = WATCH_MS,
}: {
  accounts: Pick<AccountStore, "budgets" | "spentThisMonth">;
  rollups: Rollups;
  metrics: CostMetrics;
  logger: Logger;
  everyMs?: number;
}): AccountWatch {
  const admitted = new Set<string>();
  let knownMs = performance.now();
  const unknown = (): void => metrics.unknownFor((performance.now() - knownMs) / 1_000);

  const askLedgers = async (): Promise<void> => {
    try {
      const tenants = await rollups.tenants();
      const standings = await Promise.all(tenants.map((tenant) => rollups.standing(tenant)));
      knownMs = performance.now();
      metrics.ledgers(standings);
    } catch (error) {
      logger.debug({ error }, "ledgers cannot be asked");
      unknown();
    }
  };
  let asking: Promise<void> | undefined;
  const lookAtLedgers = async (): Promise<void> => {
    asking ??= askLedgers().finally(() => {
      asking = undefined;
    });
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(() => {
        unknown();
        resolve();
      }, STANDING_MS);
    });
    await Promise.race([asking, late]);
    clearTimeout(timer);
  };

  /** Series of the running month's groups begin at 0, so that their first rise is seen. */
  const admit = async (tenant: string): Promise<void> => {
    if (admitted.has(tenant)) return;
    for await (const { group } of rollups.read(tenant, "month", periodOf("month", Date.now()).startMs)) {
      metrics.admit(tenant, group);
    }
    admitted.add(tenant);
  };
  const look = async (): Promise<void> => {
    await lookAtLedgers();
    try {
      const facts = [];
      for (const tenant of await rollups.tenants()) {
        await admit(tenant);
        const [rollupMicroUsd, { microUsd: ledgerMicroUsd }, budgets] = await Promise.all([
          rollups.costThisMonth(tenant),
          accounts.spentThisMonth(tenant),
          accounts.budgets(tenant),
        ]);
        facts.push({ tenant, rollupMicroUsd, ledgerMicroUsd, budgets });
      }
      metrics.accounts(facts);
    } catch (error) {
      logger.debug({ error }, "accounts cannot be asked");
    }
  };

  let looking = look();
  const timer = setInterval(() => {
    looking = looking.then(look);
  }, everyMs);
  return {
    lookAtLedgers,
    async stop() {
      clearInterval(timer);
      await looking;
    },
  };
}
