import type { UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import { type CostDimension, type CostsAddress, formatCostsAddress } from "./costs-address.ts";
import { momentText } from "./costs-range.ts";
import { CostsTotal } from "./costs-summary-view.tsx";
import { msOf, sumRows, totalOf } from "./costs-sums.ts";
import { CallsTable, SumsTable } from "./costs-tables.tsx";
import { groupName } from "./costs-words.ts";

/** Whether a session can have more than what one group has: its team and its user pay for all of it. */
export function isPartOfSessions(by: CostDimension): boolean {
  return by !== "team" && by !== "user";
}

/** The turns of a session, or the agents and the calls of a turn. */
export function CostsRowsView({ address, rows }: { address: CostsAddress; rows: readonly UsageRecord[] }) {
  const { by, group, turn, ...rest } = address;
  const byAgent = sumRows(rows, ({ agent }) => agent);
  const total = totalOf(byAgent);
  const begun = new Map<string, number>();
  for (const { turnId, holdTime } of rows) begun.set(turnId, Math.min(begun.get(turnId) ?? Infinity, msOf(holdTime)));
  if (rows.length === 0) return <p class="hint costs-nothing">Nothing was spent in this time.</p>;
  return (
    <>
      <CostsTotal total={total} />
      {group !== undefined && isPartOfSessions(by) && (
        <p class="hint">
          Of {groupName(by, group)} only.{" "}
          <a href={formatCostsAddress({ ...rest, by, ...(turn === undefined ? {} : { turn }) })}>Show all of it</a>
        </p>
      )}
      {turn !== undefined && (
        <p class="hint costs-id">
          Turn <code>{turn}</code>
        </p>
      )}
      {turn === undefined && (
        <section class="costs-section" aria-labelledby="turns">
          <h3 id="turns">Turns</h3>
          <SumsTable
            caption="Spend by turn"
            nameHead="Turn, begun (UTC)"
            sums={sumRows(rows, ({ turnId }) => turnId)}
            total={total}
            cellOf={(name) => (
              <a href={formatCostsAddress({ ...address, turn: name })} title={name}>
                {momentText(begun.get(name) ?? 0)}
              </a>
            )}
          />
        </section>
      )}
      <section class="costs-section" aria-labelledby="agents">
        <h3 id="agents">Agents</h3>
        <SumsTable
          caption="Spend by agent"
          nameHead="Agent"
          sums={byAgent}
          total={total}
          cellOf={(name) => groupName("agent", name)}
        />
      </section>
      {turn !== undefined && (
        <section class="costs-section" aria-labelledby="calls">
          <h3 id="calls">Calls</h3>
          <CallsTable rows={rows} />
        </section>
      )}
    </>
  );
}
