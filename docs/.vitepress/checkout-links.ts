import { existsSync, statSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import type { MarkdownRenderer } from "vitepress";
import { pageOf } from "./pages.ts";

/** Folders that no page is about by name, and the page that is about them. */
const PAGES_OF_FOLDERS: Readonly<Record<string, string>> = {
  "proto/parley/chat/v1": "docs/api/chat.md",
  "proto/parley/usage/v1": "docs/api/usage.md",
  "docs/runbooks": "docs/alerts.md",
};

/**
 * Links in Markdown are between files of the checkout, as a reader of the repository follows them. In the site they lead to
 * the page that the file became; a file that is no page goes along as it is. A folder without a page is text.
 *
 * @throws Error for a link to a file that is not there: it fails the build.
 */
export function linksOfCheckout(
  md: MarkdownRenderer,
  {
    checkout,
    files,
  }: {
    checkout: string;
    /** Filled: what goes along, the path in the site by that in the checkout. */
    files: Map<string, string>;
  },
): void {
  md.core.ruler.push("links of the checkout", ({ tokens, env }) => {
    const file: string = env.realPath ?? env.path;
    for (const { children } of tokens) {
      let open: Token | undefined;
      for (const token of children ?? []) {
        if (token.type === "link_open" && followLink(token, file) === "nowhere") open = token;
        if (token.type !== "link_close" || open === undefined) continue;
        for (const end of [open, token]) Object.assign(end, { type: "text", tag: "", nesting: 0, content: "" });
        open = undefined;
      }
    }
  });

  const followLink = (token: Token, file: string): "there" | "nowhere" => {
    const [target = "", anchor] = (token.attrGet("href") ?? "").split("#");
    if (/^([a-z]+:|$)/i.test(target)) return "there";
    const path = relative(checkout, join(dirname(file), decodeURI(target)));
    const address = addressOf(path, file);
    if (address === undefined) return "nowhere";
    token.attrSet("href", anchor === undefined ? address : `${address}#${anchor}`);
    return "there";
  };

  const addressOf = (path: string, from: string): string | undefined => {
    const page = pageFor(path, checkout);
    if (page !== undefined) return `/${pageOf(page)}`;
    if (!existsSync(join(checkout, path))) throw new Error(`${from} links to ${path}, which is not there`);
    if (statSync(join(checkout, path)).isDirectory()) return undefined;
    // By another ending VitePress might take it for a page.
    const name = `files/${path}.txt`;
    files.set(path, name);
    return `/${name}`;
  };
}

type Token = ReturnType<MarkdownRenderer["parse"]>[number];

/** The Markdown file of a link's target; undefined: none. */
function pageFor(path: string, checkout: string): string | undefined {
  const candidates = [path, `${path}/README.md`, PAGES_OF_FOLDERS[path.replace(/\/$/, "")]];
  return candidates.find((one) => one?.endsWith(".md") === true && existsSync(join(checkout, one)));
}
