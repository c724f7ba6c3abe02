import type { Budget } from "../../gen/parley/usage/v1/budget_pb.js";
import { moneyText } from "./costs-money.ts";
import { momentText } from "./costs-range.ts";
import { msOf } from "./costs-sums.ts";
import { budgetName, callsText, countText, isForEach } from "./costs-words.ts";

/** What each budget allows, what is spent and held of it, and what is left. */
export function CostsBudgets({ budgets }: { budgets: readonly Budget[] }) {
  return (
    <section class="costs-section" aria-labelledby="budgets">
      <h2 id="budgets">Budgets</h2>
      {budgets.length === 0 && <p class="hint">There are no budgets.</p>}
      <ul class="costs-budgets">
        {budgets.map((budget) => (
          <BudgetItem key={budgetName(budget)} budget={budget} />
        ))}
      </ul>
    </section>
  );
}

function BudgetItem({ budget }: { budget: Budget }) {
  const { limitMicroUsd, limitTokens, dryRun, wouldRefuse } = budget;
  return (
    <li class="costs-budget">
      <h3>
        {budgetName(budget)}
        {dryRun && <span class="badge">dry run: refuses nobody</span>}
      </h3>
      {limitMicroUsd !== undefined && (
        <BudgetUse
          what="Money"
          limit={limitMicroUsd}
          spent={budget.spentMicroUsd}
          held={budget.heldMicroUsd}
          text={(amount) => moneyText(amount)}
          told={!isForEach(budget)}
        />
      )}
      {limitTokens !== undefined && (
        <BudgetUse
          what="Tokens"
          limit={limitTokens}
          spent={budget.spentTokens}
          held={budget.heldTokens}
          text={countText}
          told={!isForEach(budget)}
        />
      )}
      <p class="hint">
        {dryRun && wouldRefuse > 0n && `Would have refused ${callsText(wouldRefuse)}. `}
        Begins anew {momentText(msOf(budget.resetTime))} UTC
      </p>
    </li>
  );
}

function BudgetUse({
  what,
  limit,
  spent,
  held,
  text,
  told,
}: {
  what: string;
  limit: bigint;
  spent: bigint;
  held: bigint;
  text(amount: bigint): string;
  /** Whether what is spent is known. */
  told: boolean;
}) {
  const used = spent + held;
  const left = used < limit ? limit - used : 0n;
  const share = (amount: bigint): number =>
    limit <= 0n ? 100 : Math.min(100, Number((amount * 10_000n) / limit) / 100);
  const [spentShare, usedShare] = [share(spent), share(used)];
  return (
    <>
      {told && (
        <svg
          class="costs-meter"
          viewBox="0 0 100 1"
          preserveAspectRatio="none"
          role="img"
          aria-label={`${what}: ${Math.round(spentShare)} % spent, ${Math.round(usedShare - spentShare)} % held`}
        >
          <rect class={used >= limit ? "costs-full" : "costs-spent"} width={spentShare} height="1" />
          <rect class="costs-held" x={spentShare} width={usedShare - spentShare} height="1" />
        </svg>
      )}
      <dl class="costs-facts">
        {Object.entries(told ? { Spent: spent, Held: held, Left: left, Limit: limit } : { Limit: limit }).map(
          ([name, amount]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>
                {text(amount)}
                {what === "Tokens" && <span class="hint"> tokens</span>}
              </dd>
            </div>
          ),
        )}
      </dl>
    </>
  );
}
