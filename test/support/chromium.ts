import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { type Browser, chromium } from "playwright-core";

/** Nothing but what a test asks for: no updates, no first-run pages, no sandbox (CI runs as root). */
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Starts the system's Chromium, without a window. Without a userDataDir Playwright makes an empty one, and removes it in the end. */
export function launchChromium(): Promise<Browser> {
  return chromium.launch({ executablePath: onPath("chromium"), args: FLAGS });
}

/** The whole path of a program. */
function onPath(name: string): string {
  const found = (process.env.PATH ?? "")
    .split(delimiter)
    .map((folder) => join(folder, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
  if (found === undefined) throw new Error(`There is no ${name} on the PATH; make tools installs it.`);
  return found;
}
