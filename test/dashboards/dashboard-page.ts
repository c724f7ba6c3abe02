import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";
import { type GrafanaDashboard, type GrafanaPanel, hasData, type PanelSeries } from "./grafana-panels.ts";
import { valueText } from "./grafana-units.ts";

/** A panel with what Prometheus answered. */
export interface ReadPanel {
  readonly row: string;
  readonly panel: GrafanaPanel;
  readonly series: readonly PanelSeries[];
  /** Why it shows nothing, where that is as it should be. */
  readonly whyEmpty: string | undefined;
}

const COLUMNS = 24;
const PAGE_WIDTH = 1_680;
const GAP = 10;
const PADDING = 12;
const PLOT_HEIGHT = 190;

/** Grafana's classic palette, a shade darker: the ground is white here. */
const COLOURS = [
  "#56a64b",
  "#d9a50a",
  "#3274d9",
  "#ff780a",
  "#e02f44",
  "#1f9fb5",
  "#a352cc",
  "#8f6a3a",
  "#705da0",
  "#6e7a33",
  "#c0559b",
  "#4d6a8f",
];

/** A dashboard as a page of its own, without scripts: rows of panels, each with axes, units and a legend with the last and the highest value. */
export function dashboardPage({ title, description }: GrafanaDashboard, panels: readonly ReadPanel[]): string {
  const rows = Map.groupBy(panels, ({ row }) => row);
  return [
    "<!doctype html>",
    '<html lang="en"><meta charset="utf-8">',
    `<title>${escaped(title)}</title>`,
    `<style>${STYLE}</style>`,
    `<h1>${escaped(title)}</h1><p>${escaped(description)}</p>`,
    ...[...rows].map(
      ([row, inRow]) => `<h2>${escaped(row)}</h2><div class="row">${inRow.map(panelHtml).join("\n")}</div>`,
    ),
    "</html>\n",
  ].join("\n");
}

const STYLE = `
  body { width: ${PAGE_WIDTH}px; margin: 20px; font: 13px/1.35 system-ui, sans-serif; color: #24292e; background: #f4f5f5; }
  h1 { font-size: 22px; margin: 0 } h2 { font-size: 16px; margin: 18px 0 6px }
  .row { display: flex; flex-wrap: wrap; gap: ${GAP}px }
  .panel { box-sizing: border-box; padding: ${PADDING}px; background: #fff; border: 1px solid #d8dadd; border-radius: 3px }
  h3 { font-size: 14px; margin: 0 0 4px } .about { color: #5a6068; margin: 0 0 6px; font-size: 12px }
  .stat { font-size: 40px; text-align: center; margin: 24px 0 }
  .none { color: #5a6068; text-align: center; margin: 60px 20px } .why { display: block; font-size: 12px }
  table { border-collapse: collapse; width: 100%; font-size: 12px } th, td { text-align: left; padding: 2px 6px; border-bottom: 1px solid #eceef0 }
  .number { text-align: right; font-variant-numeric: tabular-nums }
  .swatch { display: inline-block; width: 14px; height: 4px; margin-right: 6px; vertical-align: middle }
  .bar { display: grid; grid-template-columns: minmax(0, 11fr) 12fr 64px; gap: 8px; align-items: center; margin: 4px 0; font-size: 12px }
  .track { background: #eceef0; height: 18px } .track > span { display: block; height: 100% }
`;

function panelHtml({ panel, series, whyEmpty }: ReadPanel): string {
  const { title, description, gridPos } = panel;
  const width = (gridPos.w / COLUMNS) * (PAGE_WIDTH + GAP) - GAP;
  const about = description === "" ? "" : `<p class="about">${escaped(description)}</p>`;
  const content = hasData(series)
    ? contentOf(panel, series, width - 2 * PADDING - 2)
    : `<p class="none">No data${whyEmpty === undefined ? "" : `<span class="why">${escaped(whyEmpty)}</span>`}</p>`;
  return `<section class="panel" style="width: ${width}px"><h3>${escaped(title)}</h3>${about}${content}</section>`;
}

function contentOf(panel: GrafanaPanel, series: readonly PanelSeries[], width: number): string {
  const textOf = textIn(panel);
  switch (panel.type) {
    case "timeseries":
      return `${chart(panel, series, width)}${legend(series, textOf)}`;
    case "stat":
      return series
        .map((each) => `<p class="stat" style="color: ${colourAt(panel, lastOf(each))}">${textOf(lastOf(each))}</p>`)
        .join("");
    case "bargauge":
      return series.map((each) => bar(panel, each, series)).join("");
    case "table":
      return table(panel, series);
  }
}

function chart({ fieldConfig }: GrafanaPanel, series: readonly PanelSeries[], width: number): string {
  const { unit, mappings, custom, min, max } = fieldConfig.defaults;
  const stacked = custom?.stacking.mode === "normal";
  const names = series.map((_, index) => String(index));
  const points = series.flatMap(({ points: all }, index) =>
    all.map(({ timeMs, value }) => ({ time: new Date(timeMs), value, name: String(index) })),
  );
  const seen = points.map(({ value }) => value).filter(Number.isFinite);
  const words = mappings[0]?.options;
  const channels = { x: "time", y: "value" } as const;
  const { document } = parseHTML("<html><body></body></html>");
  const drawn = Plot.plot({
    document,
    width,
    height: PLOT_HEIGHT,
    marginLeft: 76,
    marginRight: 12,
    x: { type: "utc", label: null },
    y: {
      label: null,
      grid: true,
      nice: true,
      // Flat at nothing is a line at the bottom, not in the middle.
      ...(stacked ? {} : { domain: [min ?? Math.min(0, ...seen), max ?? (Math.max(0, ...seen) || 1)] }),
      tickFormat: (value: number) => words?.[String(value)]?.text ?? valueText(value, unit),
      ...(words === undefined ? { ticks: 5 } : { ticks: Object.keys(words).map(Number), domain: [0, 2] }),
    },
    color: { domain: names, range: names.map((_, index) => colourOf(index)) },
    marks: [
      Plot.ruleY([0]),
      ...(stacked
        ? [
            Plot.areaY(points, Plot.stackY({ ...channels, fill: "name", fillOpacity: 0.35, order: names })),
            Plot.lineY(points, Plot.stackY2({ ...channels, stroke: "name", order: names })),
          ]
        : [
            Plot.lineY(points, { ...channels, stroke: "name" }),
            Plot.dot(alone(points), { ...channels, fill: "name", r: 2 }),
          ]),
    ],
  });
  return drawn.outerHTML;
}

/** Points without neighbours, of which no line can be drawn. */
function alone<T extends { readonly value: number; readonly name: string }>(points: readonly T[]): T[] {
  const isSeen = (point: T | undefined, name: string) => point?.name === name && Number.isFinite(point.value);
  return points.filter(
    (point, index) =>
      isSeen(point, point.name) && !isSeen(points[index - 1], point.name) && !isSeen(points[index + 1], point.name),
  );
}

function legend(series: readonly PanelSeries[], textOf: (value: number) => string): string {
  const rows = series.map((each, index) => {
    const values = each.points.map(({ value }) => value).filter(Number.isFinite);
    const cells = [lastOf(each), values.length === 0 ? Number.NaN : Math.max(...values)].map(
      (value) => `<td class="number">${escaped(textOf(value))}</td>`,
    );
    const swatch = `<span class="swatch" style="background: ${colourOf(index)}"></span>`;
    return `<tr><td>${swatch}${escaped(each.name)}</td>${cells.join("")}</tr>`;
  });
  return `<table><tr><th>Name</th><th class="number">Last</th><th class="number">Max</th></tr>${rows.join("")}</table>`;
}

function bar(panel: GrafanaPanel, each: PanelSeries, all: readonly PanelSeries[]): string {
  const { max } = panel.fieldConfig.defaults;
  const value = lastOf(each);
  // Without a highest value of its own Grafana takes that of the panel.
  const most = max ?? Math.max(...all.map(lastOf).filter(Number.isFinite));
  const share = Math.max(0, Math.min(1, value / most || 0));
  return [
    `<div class="bar"><span>${escaped(each.name)}</span>`,
    `<span class="track"><span style="width: ${share * 100}%; background: ${colourAt(panel, value)}"></span></span>`,
    `<span class="number">${escaped(textIn(panel)(value))}</span></div>`,
  ].join("");
}

function table(panel: GrafanaPanel, series: readonly PanelSeries[]): string {
  const { excludeByName = {}, renameByName = {} } = panel.transformations?.[0]?.options ?? {};
  const labels = [...new Set(series.flatMap((each) => Object.keys(each.labels)))].sort();
  const columns = ["Time", ...labels, "Value"].filter((name) => excludeByName[name] !== true);
  const cellOf = (each: PanelSeries, column: string): string => {
    if (column === "Value") return `<td class="number">${escaped(textIn(panel)(lastOf(each)))}</td>`;
    if (column === "Time") return `<td>${new Date(each.points.at(-1)?.timeMs ?? 0).toISOString()}</td>`;
    return `<td>${escaped(each.labels[column] ?? "")}</td>`;
  };
  const head = columns
    .map((name) => `<th${name === "Value" ? ' class="number"' : ""}>${escaped(renameByName[name] ?? name)}</th>`)
    .join("");
  const rows = series.map((each) => `<tr>${columns.map((column) => cellOf(each, column)).join("")}</tr>`);
  return `<table><tr>${head}</tr>${rows.join("")}</table>`;
}

function textIn({ fieldConfig }: GrafanaPanel): (value: number) => string {
  const { unit, mappings } = fieldConfig.defaults;
  return (value) => mappings[0]?.options[String(value)]?.text ?? valueText(value, unit);
}

function lastOf({ points }: PanelSeries): number {
  return points.findLast(({ value }) => Number.isFinite(value))?.value ?? Number.NaN;
}

function colourAt({ fieldConfig }: GrafanaPanel, value: number): string {
  const step = fieldConfig.defaults.thresholds.steps.findLast((each) => each.value === null || value >= each.value);
  return { green: "#56a64b", yellow: "#d9a50a", red: "#e02f44" }[step?.color ?? ""] ?? "#24292e";
}

function colourOf(index: number): string {
  return COLOURS[index % COLOURS.length] ?? "";
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
}
