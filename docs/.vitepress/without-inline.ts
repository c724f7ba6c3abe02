import { createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/**
 * Takes out of a page what is inline, for the policy that the service sends allows none: the scripts that VitePress runs
 * before anything is drawn (dark or light) become files of the site, and the styles of two elements are in theme/style.css or
 * set by the page itself as soon as it runs.
 */
export function withoutInline(html: string, outDir: string): string {
  const scriptless = html.replace(/<script id="[\w-]+">([\s\S]*?)<\/script>/g, (_, code: string) => {
    const hash = createHash("sha256").update(code).digest("hex").slice(0, 8);
    const name = `assets/inline.${hash}.js`;
    mkdirSync(join(outDir, "assets"), { recursive: true });
    writeFileSync(join(outDir, name), code);
    return `<script src="/docs/${name}"></script>`;
  });
  return scriptless.replaceAll(/ style="(position:relative;|--vp-vh:0px;)"/g, "");
}
