import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { decimalsOf, moneyText, scaleOf } from "./costs-money.ts";
import { intervalText, shortTime } from "./costs-range.ts";

/** A part of each bar, from the bottom up. */
export interface ChartSeries {
  readonly name: string;
  /** 0 to {@link SERIES_COLOURS} - 1, or `rest`. */
  readonly colour: number | "rest";
  /** Cost in each interval, in micro US dollars. */
  readonly amounts: readonly bigint[];
}

/** Colours that can be told apart; see costs.css. What comes after shares one. */
export const SERIES_COLOURS = 5;

const HEIGHT = 220;
const TOP = 10;
const BOTTOM = 24;
/** Room for a time below a bar, and for half a time without the room around it, in pixels. */
const LABEL_WIDTH = 58;
const HALF_LABEL = 20;
const MOST_BAR_WIDTH = 48;

const DAY_HOURS = 24;
const DAY_MS = DAY_HOURS * 3_600_000;

/** Bars of what was spent in each interval, and the same figures as a table: heard by screen readers, seen when asked for. */
export function CostsChart({
  intervals,
  each,
  series,
  caption,
}: {
  intervals: readonly number[];
  each: "hour" | "day";
  series: readonly ChartSeries[];
  caption: string;
}) {
  const [asTable, setAsTable] = useState(false);
  const frame = useRef<HTMLDivElement>(null);
  const width = useWidth(frame);
  const totals = intervals.map((_, index) => sum(series.map(({ amounts }) => amounts[index] ?? 0n)));
  return (
    <figure class="costs-chart">
      <div ref={frame}>
        {width > 0 && (
          <Bars intervals={intervals} each={each} series={series} totals={totals} width={width} caption={caption} />
        )}
      </div>
      <button
        type="button"
        class="text-button costs-figures-button"
        aria-expanded={asTable}
        onClick={() => setAsTable(!asTable)}
      >
        {asTable ? "Hide the figures" : "Show the figures"}
      </button>
      <span class="hint"> · {each === "hour" ? "Hours" : "Days"} are UTC</span>
      <section
        class={asTable ? "costs-scroll" : "visually-hidden"}
        aria-label={`Figures: ${caption}`}
        tabIndex={asTable ? 0 : undefined}
      >
        <Figures intervals={intervals} each={each} series={series} totals={totals} caption={caption} />
      </section>
    </figure>
  );
}

interface ChartParts {
  readonly intervals: readonly number[];
  readonly each: "hour" | "day";
  readonly series: readonly ChartSeries[];
  readonly totals: readonly bigint[];
  readonly caption: string;
}

function Bars({ intervals, each, series, totals, width, caption }: ChartParts & { width: number }) {
  const scale = scaleOf(largestOf(totals));
  const most = scale.at(-1) ?? 1n;
  const decimals = decimalsOf(scale);
  const left = Math.max(...scale.map((line) => moneyText(line, decimals).length)) * 6.8 + 8;
  const plotHeight = HEIGHT - TOP - BOTTOM;
  const slot = (width - left) / intervals.length;
  const barWidth = Math.max(1, Math.min(MOST_BAR_WIDTH, slot * 0.72));
  // A ratio of two whole numbers, to a thousandth of a pixel and better: the only division of money here.
  const heightOf = (amount: bigint): number => (Number((amount * 1_000_000n) / most) / 1_000_000) * plotHeight;
  const yOf = (amount: bigint): number => TOP + plotHeight - heightOf(amount);
  const isLabelled = labelsOf(intervals, { each, slot });
  return (
    <svg
      class="costs-bars"
      width={width}
      height={HEIGHT}
      role="img"
      aria-label={`${caption}. The figures follow as a table.`}
    >
      {scale.map((line) => (
        <g key={String(line)}>
          <line class={line === 0n ? "costs-axis" : "costs-line"} x1={left} x2={width} y1={yOf(line)} y2={yOf(line)} />
          <text class="costs-tick" x={left - 8} y={yOf(line) + 4} text-anchor="end">
            {moneyText(line, decimals)}
          </text>
        </g>
      ))}
      {intervals.map((startMs, index) => {
        const x = left + slot * index + (slot - barWidth) / 2;
        const total = totals[index] ?? 0n;
        let below = 0n;
        return (
          <g key={startMs} class="costs-bar">
            <title>{barText({ intervals, each, series, totals }, index)}</title>
            {/* The whole slot answers the pointer, not the bar alone. */}
            <rect class="costs-slot" x={left + slot * index} y={TOP} width={slot} height={plotHeight} />
            {total > 0n &&
              series.map(({ name, colour, amounts }) => {
                const amount = amounts[index] ?? 0n;
                if (amount <= 0n) return null;
                const y = yOf(below + amount);
                const height = heightOf(amount);
                below += amount;
                // A hair of the ground between parts, where there is room for one.
                const gap = height > 3 && below < total ? 1 : 0;
                return (
                  <rect
                    key={name}
                    class={`costs-part costs-colour-${colour}`}
                    x={x}
                    y={y + gap}
                    width={barWidth}
                    height={Math.max(0.5, height - gap)}
                  />
                );
              })}
            {isLabelled(index) && (
              <text class="costs-tick" x={x + barWidth / 2} y={HEIGHT - 6} text-anchor="middle">
                {shortTime(startMs, tickOf(intervals, each))}
              </text>
            )}
          </g>
        );
      })}
    </svg>
  );
}

/** Which bars have their time below them: as many as there is room for; of hours of many days, the days' first. */
function labelsOf(
  intervals: readonly number[],
  { each, slot }: { each: "hour" | "day"; slot: number },
): (index: number) => boolean {
  const isDays = tickOf(intervals, each) === "day" && each === "hour";
  const unit = isDays ? DAY_HOURS : 1;
  const step = unit * Math.max(1, Math.ceil(LABEL_WIDTH / (slot * unit)));
  // Half a label has to fit after the last one that has any, and before the first.
  const half = Math.ceil(HALF_LABEL / slot - 0.5);
  const last = isDays
    ? intervals.findLastIndex((startMs, index) => startMs % DAY_MS === 0 && index <= intervals.length - 1 - half)
    : intervals.length - 1 - Math.max(0, half);
  return (index) => index <= last && (last - index) % step === 0;
}

/** Beyond two days an hour alone says little. */
function tickOf(intervals: readonly number[], each: "hour" | "day"): "hour" | "day" {
  return each === "hour" && intervals.length <= 2 * DAY_HOURS ? "hour" : "day";
}

function Figures({ intervals, each, series, totals, caption }: ChartParts) {
  const decimals = decimalsOf(series.flatMap(({ amounts }) => amounts));
  return (
    <table class="costs-table">
      <caption class="visually-hidden">{caption}</caption>
      <thead>
        <tr>
          <th scope="col">{each === "hour" ? "Hour (UTC)" : "Day (UTC)"}</th>
          {series.map(({ name }) => (
            <th key={name} scope="col" class="costs-number">
              {name}
            </th>
          ))}
          <th scope="col" class="costs-number">
            Total
          </th>
        </tr>
      </thead>
      <tbody>
        {intervals.map((startMs, index) => (
          <tr key={startMs}>
            <th scope="row">{intervalText(startMs, each)}</th>
            {series.map(({ name, amounts }) => (
              <td key={name} class="costs-number">
                {moneyText(amounts[index] ?? 0n, decimals)}
              </td>
            ))}
            <td class="costs-number">{moneyText(totals[index] ?? 0n, decimals)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** What a pointer over a bar is told. */
function barText({ intervals, each, series, totals }: Omit<ChartParts, "caption">, index: number): string {
  const parts = series.filter(({ amounts }) => (amounts[index] ?? 0n) !== 0n);
  return [
    `${intervalText(intervals[index] ?? 0, each)} UTC: ${moneyText(totals[index] ?? 0n)}`,
    ...(parts.length > 1 ? parts.toReversed() : []).map(
      ({ name, amounts }) => `${name}: ${moneyText(amounts[index] ?? 0n)}`,
    ),
  ].join("\n");
}

function largestOf(amounts: readonly bigint[]): bigint {
  let largest = 0n;
  for (const amount of amounts) if (amount > largest) largest = amount;
  return largest;
}

function sum(amounts: readonly bigint[]): bigint {
  return amounts.reduce((total, amount) => total + amount, 0n);
}

/** The width that an element has, in pixels; 0 before it is known. */
function useWidth(element: { readonly current: HTMLElement | null }): number {
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    if (element.current === null) return;
    setWidth(element.current.clientWidth);
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry?.contentRect.width ?? 0)));
    observer.observe(element.current);
    return () => observer.disconnect();
  }, []);
  return width;
}
