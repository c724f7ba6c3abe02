import type { Budget } from "../../gen/parley/usage/v1/budget_pb.js";
import { type CostsAddress, formatCostsAddress } from "./costs-address.ts";
import { CostsBudgets } from "./costs-budgets.tsx";
import { type ChartSeries, CostsChart, SERIES_COLOURS } from "./costs-chart.tsx";
import { moneyText } from "./costs-money.ts";
import type { TimeSpan } from "./costs-range.ts";
import type { CostsSummary, Sums } from "./costs-sums.ts";
import { SumsTable } from "./costs-tables.tsx";
import { callsText, countText, dimensionNames, groupName, rangeNames } from "./costs-words.ts";

/** Spend over time and by group, or by session of one group, and the budgets. */
export function CostsSummaryView({
  address,
  span,
  summary,
  budgets,
}: {
  address: CostsAddress;
  span: TimeSpan;
  summary: CostsSummary;
  budgets: readonly Budget[] | undefined;
}) {
  const { by, group, each } = address;
  const isGroups = group === undefined;
  const nameOf = (name: string): string => (isGroups ? groupName(by, name) : name);
  const colourOf = (name: string): ChartSeries["colour"] => {
    const at = summary.groups.findIndex((known) => known.name === name);
    return at < SERIES_COLOURS ? at : "rest";
  };
  const things = isGroups ? dimensionNames[by].toLowerCase() : "session";
  const caption = `Spend by ${things}, ${rangeNames[address.range].toLowerCase()}`;
  return (
    <>
      <CostsTotal total={summary.total} />
      {summary.groups.length === 0 ? (
        <p class="hint costs-nothing">Nothing was spent in this time.</p>
      ) : (
        <>
          <CostsChart
            intervals={span.intervals}
            each={each}
            series={seriesOf(summary, span.intervals, { nameOf, things })}
            caption={`Spend over time by ${things}, ${rangeNames[address.range].toLowerCase()}`}
          />
          <SumsTable
            caption={caption}
            nameHead={isGroups ? dimensionNames[by] : "Session"}
            sums={summary.groups}
            total={summary.total}
            cellOf={(name) => (
              <a href={formatCostsAddress(isGroups ? { ...address, group: name } : { ...address, session: name })}>
                {nameOf(name)}
              </a>
            )}
            colourOf={colourOf}
          />
        </>
      )}
      {budgets !== undefined && <CostsBudgets budgets={budgets} />}
    </>
  );
}

/** The sum of all that is shown. */
export function CostsTotal({ total }: { total: Sums }) {
  return (
    <div class="costs-total">
      <p class="costs-sum">{moneyText(total.costMicroUsd)}</p>
      <p class="hint">
        {callsText(total.calls)} · {countText(total.promptTokens)} tokens in · {countText(total.completionTokens)} out
      </p>
      {total.unpricedTokens > 0n && (
        <p class="costs-warning">
          {countText(total.unpricedTokens)} tokens have no known price: they cost the default one.
        </p>
      )}
    </div>
  );
}

/** The costliest have a colour each; the others are one part. */
function seriesOf(
  { groups, costs }: CostsSummary,
  intervals: readonly number[],
  { nameOf, things }: { nameOf(name: string): string; things: string },
): ChartSeries[] {
  const amountsOf = (names: readonly string[]): bigint[] =>
    intervals.map((startMs) => {
      const column = costs.get(startMs);
      return names.reduce((sum, name) => sum + (column?.get(name) ?? 0n), 0n);
    });
  const first = groups.slice(0, SERIES_COLOURS).map(({ name }, index) => ({
    name: nameOf(name),
    colour: index,
    amounts: amountsOf([name]),
  }));
  const others = groups.slice(SERIES_COLOURS).map(({ name }) => name);
  if (others.length === 0) return first;
  const name = `${others.length.toLocaleString("en")} other ${things}${others.length === 1 ? "" : "s"}`;
  return [...first, { name, colour: "rest", amounts: amountsOf(others) }];
}
