/** What a PromQL expression names. */
export interface PromqlNames {
  /** Series with the labels that they are selected by. */
  readonly selectors: readonly { readonly name: string; readonly labels: readonly string[] }[];
  /** Labels of by, without, on, ignoring, group_left and group_right. */
  readonly grouping: readonly string[];
}

const WORDS = new Set(["and", "or", "unless", "bool", "offset", "inf", "nan"]);
const GROUPING = new Set(["by", "without", "on", "ignoring", "group_left", "group_right"]);
const TOKEN = /"(?:\\.|[^"\\])*"|\[[^\]]*\]|[A-Za-z_:][\w:]*|\d[\w.]*|[{}(),]|\s+|[^\s]/g;

/** Reads the names of an expression that promtool accepts. Labels that functions make up (`label_replace`) are strings, not names. */
export function promqlNames(expr: string): PromqlNames {
  const tokens = (expr.match(TOKEN) ?? []).filter((token) => token.trim() !== "");
  const selectors: { name: string; labels: string[] }[] = [];
  const grouping: string[] = [];
  for (let at = 0; at < tokens.length; at++) {
    const token = tokens[at] ?? "";
    const next = tokens[at + 1];
    if (GROUPING.has(token) && next === "(") {
      for (at += 2; tokens[at] !== ")"; at++) if (tokens[at] !== ",") grouping.push(tokens[at] ?? "");
    } else if (/^[A-Za-z_:]/.test(token) && !WORDS.has(token.toLowerCase()) && !GROUPING.has(token)) {
      // A function, or an aggregation with its grouping before its argument.
      if (next === "(" || GROUPING.has(next ?? "")) continue;
      const labels: string[] = [];
      if (next === "{") for (at += 2; tokens[at] !== "}"; at++) if (isLabel(tokens, at)) labels.push(tokens[at] ?? "");
      selectors.push({ name: token, labels });
    }
  }
  return { selectors, grouping };
}

/** Within braces a label stands before its operator: `=`, `!=`, `=~`, `!~`. */
function isLabel(tokens: readonly string[], at: number): boolean {
  return /^[A-Za-z_]/.test(tokens[at] ?? "") && /^[=!]/.test(tokens[at + 1] ?? "");
}
