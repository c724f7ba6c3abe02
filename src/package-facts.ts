import { readFileSync } from "node:fs";
import { join } from "node:path";

/** Version of this release, as package.json has it. */
export function packageVersion(): string {
  const text = readFileSync(join(import.meta.dirname, "../package.json"), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}

/** Folders of what is served beside the RPCs, as its builds leave it. */
export interface SiteFolders {
  readonly console: string;
  readonly docs: string;
}

export const siteFolders: SiteFolders = {
  console: join(import.meta.dirname, "../web/dist"),
  docs: join(import.meta.dirname, "../docs/.vitepress/dist"),
};
