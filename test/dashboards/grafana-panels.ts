/** A dashboard as Grafana imports it: what of its JSON decides what is asked and drawn. */
export interface GrafanaDashboard {
  readonly uid: string;
  readonly title: string;
  readonly description: string;
  readonly panels: readonly (GrafanaRow | GrafanaPanel)[];
}

export interface GrafanaRow {
  readonly type: "row";
  readonly title: string;
}

export interface GrafanaPanel {
  readonly type: "timeseries" | "stat" | "bargauge" | "table";
  readonly title: string;
  readonly description: string;
  readonly gridPos: { readonly w: number; readonly h: number };
  readonly targets: readonly GrafanaTarget[];
  readonly fieldConfig: {
    readonly defaults: {
      readonly unit: string;
      readonly min?: number;
      readonly max?: number;
      readonly thresholds: { readonly steps: readonly { readonly color: string; readonly value: number | null }[] };
      readonly mappings: readonly { readonly options: Readonly<Record<string, { readonly text: string }>> }[];
      readonly custom?: { readonly stacking: { readonly mode: string } };
    };
  };
  readonly transformations?: readonly {
    readonly options: {
      readonly excludeByName?: Readonly<Record<string, boolean>>;
      readonly renameByName?: Readonly<Record<string, string>>;
    };
  }[];
}

interface GrafanaTarget {
  readonly expr: string;
  readonly legendFormat: string;
  readonly range?: boolean;
}

/** Panels with the title of the row that they stand in. */
export function panelsOf({ panels }: GrafanaDashboard): { readonly row: string; readonly panel: GrafanaPanel }[] {
  let row = "";
  return panels.flatMap((panel) => {
    if (panel.type !== "row") return [{ row, panel }];
    row = panel.title;
    return [];
  });
}

/** What is looked at: from when to when, with a value every so often. */
export interface TimeShown {
  readonly startMs: number;
  readonly endMs: number;
  readonly stepMs: number;
}

/** One line, bar, figure or row of a panel. */
export interface PanelSeries {
  /** Its legend. */
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  /** The last one is the one of now; where something is asked for now only it is the only one. NaN: there is none at that time. */
  readonly points: readonly { readonly timeMs: number; readonly value: number }[];
}

/** A bucket of the range and of the rates: Grafana takes four scrapes at least, and draws no finer than this. */
const RATE_INTERVAL = "10s";

/** Asks a Prometheus what Grafana would, with all values of all variables chosen. Rejects with its words when it does not understand. */
export async function readPanel(
  prometheusUrl: string,
  { targets }: GrafanaPanel,
  shown: TimeShown,
): Promise<PanelSeries[]> {
  const { startMs, endMs, stepMs } = shown;
  const all = await Promise.all(
    targets.map(async ({ expr, legendFormat, range = false }) => {
      const query = withValues(expr, endMs - startMs);
      const found = range
        ? await ask(prometheusUrl, "query_range", {
            query,
            start: startMs / 1_000,
            end: endMs / 1_000,
            step: stepMs / 1_000,
          })
        : await ask(prometheusUrl, "query", { query, time: endMs / 1_000 });
      return found.map(({ metric, values, value }) => {
        const points = new Map(
          (values ?? (value === undefined ? [] : [value])).map(([at, text]) => [at, Number(text)]),
        );
        const times = range ? timesOf(shown) : [endMs];
        return {
          name: legendOf(legendFormat, metric),
          labels: metric,
          points: times.map((timeMs) => ({ timeMs, value: points.get(timeMs / 1_000) ?? Number.NaN })),
        };
      });
    }),
  );
  return all.flat();
}

/** Whether there is anything to be seen: a series of nothing but gaps is none. */
export function hasData(series: readonly PanelSeries[]): boolean {
  return series.some(({ points }) => points.some(({ value }) => Number.isFinite(value)));
}

function timesOf({ startMs, endMs, stepMs }: TimeShown): number[] {
  return Array.from({ length: Math.floor((endMs - startMs) / stepMs) + 1 }, (_, index) => startMs + index * stepMs);
}

/** "All" is the variables' own value for it. */
function withValues(expr: string, rangeMs: number): string {
  return expr
    .replaceAll("$__rate_interval", RATE_INTERVAL)
    .replaceAll("$__range", `${Math.ceil(rangeMs / 1_000)}s`)
    .replaceAll(/\$\w+/g, ".*");
}

/** As Grafana writes it; without a format the series as Prometheus names it. */
function legendOf(format: string, labels: Readonly<Record<string, string>>): string {
  if (format !== "") return format.replaceAll(/\{\{\s*(\w+)\s*\}\}/g, (_, label: string) => labels[label] ?? "").trim();
  const named = Object.entries(labels).map(([label, value]) => `${label}="${value}"`);
  return named.length === 0 ? "" : `{${named.join(", ")}}`;
}

type Sample = readonly [seconds: number, value: string];

async function ask(
  prometheusUrl: string,
  endpoint: "query" | "query_range",
  parameters: Readonly<Record<string, string | number>>,
): Promise<{ metric: Record<string, string>; values?: Sample[]; value?: Sample }[]> {
  const query = new URLSearchParams(Object.entries(parameters).map(([name, value]) => [name, String(value)]));
  const answer = (await (await fetch(`${prometheusUrl}/api/v1/${endpoint}?${query}`)).json()) as {
    error?: string;
    data?: { resultType: string; result: [] };
  };
  if (answer.data === undefined) throw new Error(`${answer.error}: ${parameters.query}`);
  const { resultType, result } = answer.data;
  // A number that is of nothing.
  return resultType === "scalar" ? [{ metric: {}, value: result as unknown as Sample }] : result;
}
