import type { AccountStore } from "../src/accounts/account-store.ts";
import { periodOf } from "../src/accounts/budget-periods.ts";
import type { Logger } from "../src/platform/logger-port.ts";
import type { CostMetrics } from "./cost-metrics.ts";
import type { Rollups } from "./rollups.ts";

/** Gauges are as old as this at most, in milliseconds: a third of a usual scrape interval. */
const WATCH_MS = 5_000;

/** Asks the store for what gauges say of all accounts, at once and then now and then; resolves when it has stopped. */
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
}): { stop(): Promise<void> } {
  const admitted = new Set<string>();
  let knownMs = performance.now();

  /** Series of the running month's groups begin at 0, so that their first rise is seen. */
  const admit = async (tenant: string): Promise<void> => {
    if (admitted.has(tenant)) return;
    for await (const { group } of rollups.read(tenant, "month", periodOf("month", Date.now()).startMs)) {
      metrics.admit(tenant, group);
    }
    admitted.add(tenant);
  };
  const look = async (): Promise<void> => {
    try {
      const facts = [];
      for (const tenant of await rollups.tenants()) {
        await admit(tenant);
        const [standing, rollupMicroUsd, { microUsd: ledgerMicroUsd }, budgets] = await Promise.all([
          rollups.standing(tenant),
          rollups.costThisMonth(tenant),
          accounts.spentThisMonth(tenant),
          accounts.budgets(tenant),
        ]);
        facts.push({ tenant, standing, rollupMicroUsd, ledgerMicroUsd, budgets });
      }
      knownMs = performance.now();
      metrics.accounts(facts);
    } catch (error) {
      logger.debug({ error }, "accounts cannot be asked");
      metrics.unknownFor((performance.now() - knownMs) / 1_000);
    }
  };

  let looking = look();
  const timer = setInterval(() => {
    looking = looking.then(look);
  }, everyMs);
  return {
    async stop() {
      clearInterval(timer);
      await looking;
    },
  };
}
