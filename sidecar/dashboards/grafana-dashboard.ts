/** A dashboard as code: rows of panels, which are laid out from left to right. */
export interface Dashboard {
  /** Stays the same for ever: Grafana's links name it. At most 40 characters. */
  readonly uid: string;
  readonly title: string;
  readonly description: string;
  readonly variables: readonly Variable[];
  readonly rows: readonly { readonly title: string; readonly panels: readonly Panel[] }[];
}

/** A label whose values a reader chooses from; queries say `label=~"$label"`. */
export interface Variable {
  readonly label: string;
  /** The series that its values are read from. */
  readonly of: string;
}

export interface Panel {
  readonly title: string;
  /** What to make of it, where the title does not say. */
  readonly description?: string;
  readonly kind: "timeseries" | "stat" | "bargauge" | "table";
  /** Grafana's unit id. */
  readonly unit: "reqps" | "percentunit" | "s" | "short" | "currencyUSD" | "bytes" | "none";
  readonly queries: readonly PanelQuery[];
  /** Columns of 24. Default 8. */
  readonly width?: number;
  /** Areas on top of each other, for parts of a whole. */
  readonly stacked?: boolean;
  /** From these values on it is yellow and red. */
  readonly thresholds?: { readonly warning: number; readonly critical: number };
  /** From where to where a bar goes. Grafana else takes the longest one's end for all. */
  readonly bounds?: { readonly min: number; readonly max: number };
  /** Head of a table's column of values. */
  readonly valueHead?: string;
  /** Words for values. */
  readonly words?: Readonly<Record<string, string>>;
}

export interface PanelQuery {
  readonly expr: string;
  /** `{{label}}` stands for a label's value. */
  readonly legend: string;
}

const COLUMNS = 24;
const PANEL_HEIGHT = 8;
const DEFAULT_WIDTH = 8;

/** Which Prometheus, is for the reader to choose. */
const DATASOURCE = { type: "prometheus", uid: "$" + "{datasource}" } as const;

/** The JSON that Grafana 10 and newer import. */
export function renderDashboard({ uid, title, description, variables, rows }: Dashboard): string {
  const placed: object[] = [];
  let y = 0;
  for (const row of rows) {
    placed.push({
      id: placed.length + 1,
      type: "row",
      title: row.title,
      collapsed: false,
      panels: [],
      gridPos: { h: 1, w: COLUMNS, x: 0, y },
    });
    y += 1;
    let x = 0;
    for (const panel of row.panels) {
      const w = panel.width ?? DEFAULT_WIDTH;
      if (x + w > COLUMNS) {
        x = 0;
        y += PANEL_HEIGHT;
      }
      placed.push({ id: placed.length + 1, ...asGrafana(panel), gridPos: { h: PANEL_HEIGHT, w, x, y } });
      x += w;
    }
    y += PANEL_HEIGHT;
  }
  const dashboard = {
    uid,
    title,
    description,
    tags: ["parley"],
    schemaVersion: 39,
    version: 1,
    editable: true,
    graphTooltip: 1,
    time: { from: "now-6h", to: "now" },
    refresh: "30s",
    timezone: "utc",
    templating: { list: [datasourceVariable, ...variables.map(asVariable)] },
    panels: placed,
  };
  return `${JSON.stringify(dashboard, null, 2)}\n`;
}

const datasourceVariable = {
  name: "datasource",
  label: "Prometheus",
  type: "datasource",
  query: "prometheus",
} as const;

function asVariable({ label, of }: Variable): object {
  return {
    name: label,
    label,
    type: "query",
    datasource: DATASOURCE,
    query: { query: `label_values(${of}, ${label})`, refId: label },
    refresh: 2,
    multi: true,
    includeAll: true,
    // Series without the label too.
    allValue: ".*",
    current: { selected: true, text: ["All"], value: ["$__all"] },
  };
}

function asGrafana({
  title,
  description = "",
  kind,
  unit,
  queries,
  stacked = false,
  thresholds,
  bounds,
  valueHead = "Value",
  words = {},
}: Panel): object {
  const isTable = kind === "table";
  const steps = [
    { color: "green", value: null },
    ...(thresholds === undefined
      ? []
      : [
          { color: "yellow", value: thresholds.warning },
          { color: "red", value: thresholds.critical },
        ]),
  ];
  return {
    type: kind,
    title,
    description,
    datasource: DATASOURCE,
    targets: queries.map(({ expr, legend }, index) => ({
      refId: String.fromCharCode(65 + index),
      datasource: DATASOURCE,
      expr,
      legendFormat: legend,
      // Only what changes over time is asked for over time.
      ...(kind === "timeseries" ? { range: true } : { instant: true }),
      ...(isTable ? { format: "table" } : {}),
    })),
    fieldConfig: {
      defaults: {
        unit,
        ...bounds,
        thresholds: { mode: "absolute", steps },
        mappings: Object.keys(words).length === 0 ? [] : [{ type: "value", options: asMappings(words) }],
        ...(kind === "timeseries"
          ? { custom: { fillOpacity: stacked ? 30 : 0, stacking: { mode: stacked ? "normal" : "none" } } }
          : {}),
      },
      overrides: [],
    },
    options: optionsOf(kind),
    ...(isTable ? { transformations: [{ id: "organize", options: organized(valueHead) }] } : {}),
  };
}

function organized(valueHead: string): object {
  return { excludeByName: { Time: true }, renameByName: { Value: valueHead } };
}

function optionsOf(kind: Panel["kind"]): object {
  switch (kind) {
    case "timeseries":
      return {
        legend: { displayMode: "table", placement: "bottom", calcs: ["lastNotNull", "max"] },
        tooltip: { mode: "multi", sort: "desc" },
      };
    case "stat":
      return { reduceOptions: { calcs: ["lastNotNull"] }, colorMode: "value" };
    case "bargauge":
      return { reduceOptions: { calcs: ["lastNotNull"] }, orientation: "horizontal", displayMode: "gradient" };
    case "table":
      return { showHeader: true };
  }
}

function asMappings(words: Readonly<Record<string, string>>): object {
  return Object.fromEntries(Object.entries(words).map(([value, text], index) => [value, { text, index }]));
}
