import { isMap, isScalar, type Pair, parseDocument, type YAMLMap } from "yaml";

// The table of values in the chart's README, made from the comments in values.yaml.
const BEGIN = "<!-- values: written by npm run generate:chart -->";
const END = "<!-- end of values -->";

/** One value: its path, its default as JSON, and the comment above it. */
export interface ValueRow {
  readonly path: string;
  readonly fallback: string;
  readonly meaning: string;
}

/**
 * The values of a values.yaml in its order. A key with a comment is a row of its own, with all that is below it; a map
 * without a comment is looked into. Throws on a value that nothing is said about.
 */
export function valueRows(text: string): ValueRow[] {
  const { contents } = parseDocument(text);
  if (!isMap(contents)) throw new Error("values.yaml holds no map");
  return rowsOf(contents, "", withoutHead(text));
}

function rowsOf(map: YAMLMap, prefix: string, firstComment: string): ValueRow[] {
  return map.items.flatMap((pair, index) => {
    const key = isScalar(pair.key) ? String(pair.key.value) : "";
    const path = prefix === "" ? key : `${prefix}.${key}`;
    const comment = index === 0 ? firstComment : commentOf(pair);
    const { value } = pair;
    if (comment === "" && isMap(value) && value.items.length > 0)
      return rowsOf(value, path, (value.commentBefore ?? "").trim());
    if (comment === "") throw new Error(`${path}: no comment says what it is`);
    const fallback = JSON.stringify(isScalar(value) || value === null ? (value?.value ?? null) : pairJson(value));
    return [{ path, fallback, meaning: comment.replaceAll(/\s*\n\s*/g, " ").trim() }];
  });
}

function commentOf(pair: Pair): string {
  return isScalar(pair.key) ? (pair.key.commentBefore ?? "").trim() : "";
}

function pairJson(value: unknown): unknown {
  return (value as { toJSON(): unknown }).toJSON();
}

/** The file begins with a paragraph about itself; the first key's comment is the paragraph below it. */
function withoutHead(text: string): string {
  const paragraphs = text.split(/\n\n/);
  return (paragraphs[1] ?? "")
    .split("\n")
    .filter((line) => line.startsWith("#"))
    .map((line) => line.slice(1))
    .join("\n");
}

export function valuesTable(rows: readonly ValueRow[]): string {
  const lines = rows.map(({ path, fallback, meaning }) => `| \`${path}\` | \`${fallback}\` | ${meaning} |`);
  return ["| value | default | what it is |", "|---|---|---|", ...lines].join("\n");
}

/** The README with the table of `values` in it. */
export function withTable(readme: string, values: string): string {
  const [before = "", rest = ""] = readme.split(BEGIN);
  const after = rest.split(END)[1];
  if (after === undefined) throw new Error(`README.md lacks ${BEGIN} or ${END}`);
  return `${before}${BEGIN}\n\n${valuesTable(valueRows(values))}\n\n${END}${after}`;
}
