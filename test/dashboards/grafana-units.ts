// Numbers as Grafana writes them: https://github.com/grafana/grafana/tree/main/packages/grafana-data/src/valueFormats

/** A value in its unit, such as `12.5 req/s`. A unit that Grafana has and this does not is a defect of the drawing. */
export function valueText(value: number, unit: string): string {
  if (!Number.isFinite(value)) return "";
  switch (unit) {
    case "none":
      return digits(value);
    case "short":
      return scaled(value, SHORT);
    case "reqps":
      return `${scaled(value, SHORT)} req/s`;
    case "percentunit":
      return `${digits(value * 100)}%`;
    case "s":
      return seconds(value);
    case "bytes":
      return scaled(value, BYTES);
    case "currencyUSD":
      return value < 0 ? `-$${scaled(-value, SHORT)}` : `$${scaled(value, SHORT)}`;
    default:
      throw new Error(`the unit ${unit} is not known to the drawing`);
  }
}

type Scale = readonly (readonly [from: number, suffix: string])[];

const SHORT: Scale = [
  [1e12, " Tri"],
  [1e9, " Bil"],
  [1e6, " Mil"],
  [1e3, " K"],
];
const BYTES: Scale = [
  [2 ** 40, " TiB"],
  [2 ** 30, " GiB"],
  [2 ** 20, " MiB"],
  [2 ** 10, " KiB"],
  [0, " B"],
];

function scaled(value: number, scale: Scale): string {
  const [from, suffix] = scale.find(([least]) => Math.abs(value) >= least) ?? [1, ""];
  return `${digits(value / (from || 1))}${suffix}`;
}

function seconds(value: number): string {
  const size = Math.abs(value);
  if (size === 0 || (size >= 1 && size < 60)) return `${digits(value)} s`;
  if (size < 1e-3) return `${digits(value * 1e6)} µs`;
  if (size < 1) return `${digits(value * 1e3)} ms`;
  return size < 3_600 ? `${digits(value / 60)} mins` : `${digits(value / 3_600)} hours`;
}

/** Three digits that count. */
function digits(value: number): string {
  return Number(value.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 9, useGrouping: false });
}
