/** The page that a Markdown file becomes, by its path in the checkout: without `docs`, and by a name of its own elsewhere. */
export function pageOf(path: string): string {
  const [, own] = OUTSIDE.find(([pattern]) => pattern.test(path)) ?? [];
  if (own !== undefined) return own(path);
  return path.replace(/^docs\//, "").replace(/(^|\/)README\.md$/, "$1index.md");
}

const folderOf = (path: string): string => path.split("/").at(-2) ?? "";

const OUTSIDE: readonly [RegExp, (path: string) => string][] = [
  [/^CHANGELOG\.md$/, () => "changelog.md"],
  [/^CONTRIBUTING\.md$/, () => "contributing.md"],
  [/^bench\/README\.md$/, () => "benchmark.md"],
  [/^helm\/parley\/README\.md$/, () => "chart.md"],
  [/^examples\/README\.md$/, () => "quickstart/index.md"],
  [/^examples\/teams\/README\.md$/, () => "example-teams/index.md"],
  [/^examples\/teams\/[^/]+\/README\.md$/, (path) => `example-teams/${folderOf(path)}.md`],
  [/^examples\/[^/]+\/README\.md$/, (path) => `quickstart/${folderOf(path)}.md`],
];
