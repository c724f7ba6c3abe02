import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import type { UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import type { ChartSeries } from "./costs-chart.tsx";
import { decimalsOf, moneyText } from "./costs-money.ts";
import { momentText } from "./costs-range.ts";
import { msOf, type NamedSums, type Sums } from "./costs-sums.ts";
import { callsText, countText, outcomeText, sourceText } from "./costs-words.ts";

/** Rows that are shown at once; who wants all asks for them. */
const FIRST_ROWS = 50;

/** Sums by name, with their total: groups, sessions, turns or agents. */
export function SumsTable({
  caption,
  nameHead,
  sums,
  total,
  cellOf,
  colourOf,
}: {
  caption: string;
  nameHead: string;
  sums: readonly NamedSums[];
  total: Sums;
  /** The name as it is shown, or a link that leads further. */
  cellOf(name: string): ComponentChildren;
  /** The colour of its part of the bars; undefined: there are no bars. */
  colourOf?(name: string): ChartSeries["colour"];
}) {
  const [all, setAll] = useState(false);
  const shown = all ? sums : sums.slice(0, FIRST_ROWS);
  const decimals = decimalsOf([...sums.map(({ costMicroUsd }) => costMicroUsd), total.costMicroUsd]);
  return (
    <>
      <ScrollingTable label={caption}>
        <caption class="visually-hidden">{caption}</caption>
        <thead>
          <tr>
            <th scope="col">{nameHead}</th>
            <NumberHeads wide={["Calls", "Tokens in", "Tokens out"]} />
          </tr>
        </thead>
        <tbody>
          {shown.map((each) => (
            <tr key={each.name}>
              <th scope="row" class="costs-name">
                {colourOf !== undefined && <Swatch colour={colourOf(each.name)} />}
                {cellOf(each.name)}
                <Brief sums={each} />
              </th>
              <SumsCells sums={each} decimals={decimals} />
            </tr>
          ))}
        </tbody>
        <tfoot>
          <tr>
            <th scope="row">
              Total
              <Brief sums={total} />
            </th>
            <SumsCells sums={total} decimals={decimals} />
          </tr>
        </tfoot>
      </ScrollingTable>
      {shown.length < sums.length && (
        <button type="button" class="quiet-button costs-more" onClick={() => setAll(true)}>
          Show all {sums.length.toLocaleString("en")}
        </button>
      )}
    </>
  );
}

/** Rows of the ledger: the calls of a turn, and their corrections. */
export function CallsTable({ rows }: { rows: readonly UsageRecord[] }) {
  const caption = "Model calls, oldest first";
  const decimals = decimalsOf(rows.map(({ costMicroUsd }) => costMicroUsd));
  return (
    <ScrollingTable label={caption}>
      <caption class="visually-hidden">{caption}</caption>
      <thead>
        <tr>
          <th scope="col">Time (UTC)</th>
          {["Agent", "Model", "How it ended"].map((head) => (
            <th key={head} scope="col" class="costs-wide">
              {head}
            </th>
          ))}
          <NumberHeads wide={["Tokens in", "Tokens out"]} />
        </tr>
      </thead>
      <tbody>
        {rows.map((row) => (
          <tr key={row.recordId} title={row.recordId}>
            <th scope="row">
              <span class="costs-time">{momentText(msOf(row.holdTime))}</span>
              <span class="costs-narrow">
                {row.agent}, {row.model}
                <br />
                {endOf(row)}, {sourceOf(row)}
                <br />
                {countText(row.promptTokens)} in · {countText(row.completionTokens)} out
              </span>
            </th>
            <td class="costs-wide">{row.agent}</td>
            <td class="costs-wide">{row.model}</td>
            <td class="costs-wide">
              {endOf(row)}
              <span class="costs-source">{sourceOf(row)}</span>
            </td>
            <td class="costs-number costs-wide">{countText(row.promptTokens)}</td>
            <td class="costs-number costs-wide">{countText(row.completionTokens)}</td>
            <td class="costs-number">{moneyText(row.costMicroUsd, decimals)}</td>
          </tr>
        ))}
      </tbody>
    </ScrollingTable>
  );
}

function endOf({ correctsRecordId, outcome }: UsageRecord): string {
  return correctsRecordId === "" ? outcomeText(outcome) : "correction";
}

function sourceOf({ priceVersion, usageSource }: UsageRecord): string {
  return priceVersion === "" ? "no known price" : sourceText(usageSource);
}

/** What does not fit scrolls within itself, never the page. */
function ScrollingTable({ label, children }: { label: string; children: ComponentChildren }) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
    <section class="costs-scroll" aria-label={label} tabIndex={0}>
      <table class="costs-table">{children}</table>
    </section>
  );
}

/** Heads of the columns of numbers: those for which a narrow screen has no room, then what was spent. */
function NumberHeads({ wide }: { wide: readonly string[] }) {
  return (
    <>
      {wide.map((head) => (
        <th key={head} scope="col" class="costs-number costs-wide">
          {head}
        </th>
      ))}
      <th scope="col" class="costs-number">
        Spend
      </th>
    </>
  );
}

function SumsCells({ sums, decimals }: { sums: Sums; decimals: number }) {
  return (
    <>
      <td class="costs-number costs-wide">{countText(sums.calls)}</td>
      <td class="costs-number costs-wide">{countText(sums.promptTokens)}</td>
      <td class="costs-number costs-wide">{countText(sums.completionTokens)}</td>
      <td class="costs-number costs-money">{moneyText(sums.costMicroUsd, decimals)}</td>
    </>
  );
}

/** What the columns say for which a narrow screen has no room. */
function Brief({ sums }: { sums: Sums }) {
  return (
    <span class="costs-narrow">
      {callsText(sums.calls)} · {countText(sums.promptTokens)} in · {countText(sums.completionTokens)} out
    </span>
  );
}

function Swatch({ colour }: { colour: ChartSeries["colour"] }) {
  return (
    <svg class="costs-swatch" viewBox="0 0 10 10" aria-hidden="true" focusable="false">
      <rect class={`costs-colour-${colour}`} width="10" height="10" rx="2.5" />
    </svg>
  );
}
