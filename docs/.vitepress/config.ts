import { copyFileSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { transformerStyleToClass } from "@shikijs/transformers";
import { type DefaultTheme, defineConfig } from "vitepress";
import { linksOfCheckout } from "./checkout-links.ts";
import { pageOf } from "./pages.ts";
import { appendProgram } from "./quickstart-programs.ts";
import { withoutInline } from "./without-inline.ts";

// The documentation as a site, which the service serves at /docs/ beside its console: `npm run build:docs`. Its pages are
// the Markdown files of the checkout, where they are; what is here only says which page each becomes, and how they are found.

const checkout = join(import.meta.dirname, "../..");

/** Names of the pages of a folder of `docs`, without their ending. */
const namesIn = (folder: string): string[] =>
  readdirSync(join(checkout, "docs", folder))
    .filter((name) => name.endsWith(".md") && name !== "README.md")
    .map((name) => name.slice(0, -".md".length))
    .sort();

const sidebar: DefaultTheme.SidebarItem[] = [
  {
    text: "Start",
    items: [
      { text: "Parley", link: "/" },
      { text: "Concepts", link: "/concepts" },
      {
        text: "Quickstart",
        link: "/quickstart/",
        items: [
          { text: "Go", link: "/quickstart/go" },
          { text: "Python", link: "/quickstart/python" },
          { text: "Java", link: "/quickstart/java" },
          { text: "Rust", link: "/quickstart/rust" },
          { text: "Node", link: "/quickstart/node" },
          { text: "Browser", link: "/quickstart/browser" },
          { text: "curl", link: "/quickstart/curl" },
        ],
      },
    ],
  },
  {
    text: "Callers",
    items: [
      { text: "parley/client", link: "/clients" },
      { text: "Turns", link: "/turns" },
      { text: "OpenAI's clients", link: "/openai" },
      { text: "From AutoGen", link: "/from-autogen" },
      { text: "Who calls, and who pays", link: "/identity" },
      { text: "At the edge", link: "/edge" },
    ],
  },
  {
    text: "Teams",
    items: [
      { text: "Teams of agents", link: "/teams" },
      { text: "Testing them", link: "/testing" },
      {
        text: "Five to try",
        link: "/example-teams/",
        collapsed: true,
        items: [
          { text: "Writer and critic", link: "/example-teams/writer-and-critic" },
          { text: "Selector of experts", link: "/example-teams/selector-of-experts" },
          { text: "Swarm triage", link: "/example-teams/swarm-triage" },
          { text: "Tool user", link: "/example-teams/tool-user" },
          { text: "Approval", link: "/example-teams/approval" },
        ],
      },
    ],
  },
  {
    text: "Reference",
    items: [
      { text: "Chat and sessions", link: "/api/chat" },
      { text: "Usage", link: "/api/usage" },
      { text: "Errors", link: "/errors" },
      { text: "Configuration", link: "/config" },
      { text: "Metrics", link: "/metrics" },
      { text: "Values of the chart", link: "/chart" },
    ],
  },
  {
    text: "Operations",
    items: [
      { text: "In Kubernetes", link: "/operations/" },
      { text: "Install", link: "/operations/install" },
      { text: "Redis", link: "/operations/redis" },
      { text: "Secrets", link: "/operations/secrets" },
      { text: "Scale", link: "/operations/scale" },
      { text: "Upgrade", link: "/operations/upgrade" },
      { text: "Canary", link: "/operations/canary" },
      { text: "Flagger", link: "/operations/flagger" },
      { text: "Argo Rollouts", link: "/operations/argo" },
      { text: "Beyond one cluster", link: "/operations/beyond-one-cluster" },
      { text: "Costs", link: "/costs" },
      { text: "Alerts", link: "/alerts" },
      {
        text: "Runbooks",
        collapsed: true,
        items: namesIn("runbooks").map((name) => ({ text: name, link: `/runbooks/${name}` })),
      },
    ],
  },
  {
    text: "Parley itself",
    items: [
      { text: "Changelog", link: "/changelog" },
      { text: "What it costs to run", link: "/benchmark" },
      { text: "Contributing", link: "/contributing" },
      {
        text: "Decisions",
        collapsed: true,
        items: namesIn("decisions").map((name) => ({ text: sentenceOf(name), link: `/decisions/${name}` })),
      },
    ],
  },
];

/** `2026-11-24-holds-beside-the-counters`: "Holds beside the counters". */
function sentenceOf(name: string): string {
  const words = name.replace(/^[\d-]+/, "").replaceAll("-", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** As GitHub makes anchors of headings: links between the documents are written for both. */
function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
    .replaceAll(/\s/g, "-");
}

const files = new Map<string, string>();
// Inline styles would need a hole in the policy that the service sends with its pages.
const colours = transformerStyleToClass({ classPrefix: "code-" });

// biome-ignore lint/style/noDefaultExport: VitePress reads the default export
export default defineConfig({
  title: "Parley",
  description: "AI agents behind protobuf-defined services: a chat turn you can drop, retry and resume",
  base: "/docs/",
  srcDir: "..",
  cacheDir: "../.cache/vitepress",
  srcExclude: ["!(docs|examples|helm|bench)/**/*.md"],
  rewrites: pageOf,
  // Every config.ts of the checkout would be taken for one of VitePress's, and run.
  additionalConfig: {},
  // Where a developer's own service answers is no page of this site.
  ignoreDeadLinks: "localhostLinks",
  // While colours change it would put a style into the page, which the policy refuses.
  appearance: { disableTransition: false },
  head: [
    ["link", { rel: "icon", href: "/docs/favicon.svg", type: "image/svg+xml" }],
    ["link", { rel: "stylesheet", href: "/docs/code.css" }],
  ],
  markdown: {
    // Shown as it is: there is no grammar for Prometheus' queries.
    languageAlias: { promql: "text" },
    theme: { light: "github-light-high-contrast", dark: "github-dark" },
    codeTransformers: [colours],
    anchor: { slugify: anchorOf },
    config(md) {
      appendProgram(md, checkout);
      linksOfCheckout(md, { checkout, files });
    },
  },
  themeConfig: {
    logo: "/favicon.svg",
    nav: [
      { text: "Quickstart", link: "/quickstart/" },
      { text: "Reference", link: "/api/chat" },
      { text: "Operations", link: "/operations/" },
      // Above the site, which VitePress has no other way to say.
      { text: "Console", link: "/../", target: "_self", noIcon: true },
    ],
    sidebar,
    outline: { level: [2, 3] },
    search: { provider: "local" },
  },
  transformHtml: (html, _, { siteConfig }) => withoutInline(html, siteConfig.outDir),
  buildEnd({ outDir }) {
    // Pages are rendered in whatever order; the same documentation is the same site.
    const rules = colours
      .getCSS()
      .split(/(?<=\})/)
      .toSorted();
    writeFileSync(join(outDir, "code.css"), `${rules.join("\n")}\n`);
    copyFileSync(join(checkout, "web/public/favicon.svg"), join(outDir, "favicon.svg"));
    for (const [path, name] of files) {
      mkdirSync(dirname(join(outDir, name)), { recursive: true });
      copyFileSync(join(checkout, path), join(outDir, name));
    }
  },
});
