import { readdirSync, readFileSync } from "node:fs";
import { join, posix, relative } from "node:path";
import { parseHTML } from "linkedom";
import type { Page } from "playwright-core";
import { describe, expect, test } from "vitest";
import { siteFolders } from "../../src/package-facts.ts";
import { eventually, useBrowser } from "../support/browser.ts";
import { textContrasts } from "../support/contrast.ts";
import { useTestApp } from "../support/use-app.ts";

// The documentation as `make docs` builds it and the service serves it.

const browser = useBrowser();
const app = useTestApp();

const names = readdirSync(siteFolders.docs, { recursive: true, encoding: "utf8" }).map((name) =>
  relative("/", join("/", name)),
);
const pages = new Map(
  names
    .filter((name) => name.endsWith(".html") && name !== "404.html")
    .map((name) => [addressOf(name), parseHTML(readFileSync(join(siteFolders.docs, name), "utf8")).document]),
);

function addressOf(name: string): string {
  return `/docs/${name.replace(/(^|\/)index\.html$/, "$1")}`;
}

interface Link {
  readonly from: string;
  readonly path: string;
  readonly anchor: string;
}

const links: readonly Link[] = [...pages].flatMap(([from, document]) =>
  [...document.querySelectorAll("a[href]")]
    .map((anchor) => anchor.getAttribute("href") ?? "")
    .filter((href) => !/^https?:/.test(href))
    .map((href) => {
      const url = new URL(href, `http://parley${from}`);
      return { from, path: url.pathname, anchor: decodeURIComponent(url.hash.slice(1)) };
    }),
);

test("every link and every anchor of every page leads somewhere", () => {
  expect(pages.size).toBeGreaterThan(60);
  expect(links.length).toBeGreaterThan(1_000);
  const files = new Set([...names.map((name) => posix.join("/docs", name)), ...pages.keys(), "/"]);
  const nowhere = links.filter(({ path, anchor }) => {
    const page = pages.get(path);
    return !files.has(path) || (anchor !== "" && page !== undefined && page.getElementById(anchor) === null);
  });
  expect(nowhere).toEqual([]);
});

test("every page is in the list of pages", () => {
  const listed = new Set(
    [...(pages.get("/docs/")?.querySelectorAll(".VPSidebar a[href]") ?? [])].map((link) => link.getAttribute("href")),
  );
  expect([...pages.keys()].filter((path) => !listed.has(path))).toEqual([]);
});

test("each language's quickstart shows the program that the tests of its folder run", () => {
  const folder = join(import.meta.dirname, "../../examples");
  const languages = readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && entry.name !== "teams")
    .map(({ name }) => name);
  expect(languages.length).toBeGreaterThanOrEqual(7);
  for (const language of languages) {
    const shown = pages.get(`/docs/quickstart/${language}.html`)?.querySelector("main")?.textContent ?? "";
    const [, commands = ""] = /## Run\n\n```sh\n([\s\S]*?)```/.exec(
      readFileSync(join(folder, language, "README.md"), "utf8"),
    ) ?? [""];
    expect(commands).not.toBe("");
    expect(shown).toContain(commands.trim());
    // Each makes the refusal of its fifth step an object.
    expect(shown, language).toContain("retry_after_s");
  }
});

test("the service serves all of it, and a folder's page by the folder", async () => {
  const redirected = await fetch(`${app.url}/docs`, { redirect: "manual" });
  expect([redirected.status, redirected.headers.get("location")]).toEqual([301, "/docs/"]);
  for (const [path, type] of [
    ["/docs/", "text/html; charset=utf-8"],
    ["/docs/operations/", "text/html; charset=utf-8"],
    ["/docs/errors.html", "text/html; charset=utf-8"],
    ["/docs/files/src/metrics.ts.txt", "text/plain; charset=utf-8"],
    ["/docs/favicon.svg", "image/svg+xml"],
  ]) {
    const response = await fetch(`${app.url}${path}`);
    expect([path, response.status, response.headers.get("content-type")]).toEqual([path, 200, type]);
    expect(response.headers.get("content-security-policy")).toContain("default-src 'none'; script-src 'self'");
    await response.arrayBuffer();
  }
  expect((await fetch(`${app.url}/docs/nothing.html`)).status).toBe(404);
});

test("it is small enough to be kept in memory", () => {
  const bytes = names
    .filter((name) => /\.\w+$/.test(name))
    .reduce((sum, name) => sum + readFileSync(join(siteFolders.docs, name)).length, 0);
  expect(bytes).toBeLessThan(8 * 1024 * 1024);
});

/** The pages that have everything there is to draw: tables, programs, lists, long words. */
const SHOWN = ["/docs/", "/docs/quickstart/go.html", "/docs/api/chat.html", "/docs/errors.html", "/docs/concepts.html"];

/** Level AA of WCAG 2.2 for text of any size. */
const LEAST_CONTRAST = 4.5;

describe.each(["light", "dark"] as const)("in %s", (colorScheme) => {
  test.each(SHOWN)("%s is drawn under its policy, and all text can be read", async (path) => {
    const page = await browser.visit(app.url + path, { colorScheme, reducedMotion: "reduce" });
    await page.getByRole("heading", { level: 1 }).waitFor();
    await eventually(() => page.locator("html.dark").count()).toBe(colorScheme === "dark" ? 1 : 0);
    const contrasts = await textContrasts(page);
    expect(contrasts.length).toBeGreaterThan(20);
    expect(contrasts.filter(({ ratio }) => ratio < LEAST_CONTRAST)).toEqual([]);
  });
});

test.each(SHOWN)("at 360 pixels %s does not scroll sideways", async (path) => {
  const page = await browser.visit(app.url + path, { viewport: { width: 360, height: 640 } });
  await page.getByRole("heading", { level: 1 }).waitFor();
  await expectNoSidewaysScroll(page);
});

test("at 360 pixels the list of pages is a drawer", async () => {
  const page = await browser.visit(`${app.url}/docs/`, { viewport: { width: 360, height: 640 } });
  await page.locator(".VPLocalNav").getByRole("button", { name: "Menu" }).click();
  await page.locator(".VPSidebar").getByRole("link", { name: "Errors" }).click();
  await page.getByRole("heading", { level: 1, name: "Errors" }).waitFor();
  await expectNoSidewaysScroll(page);
});

test("what is searched for is found, without asking anyone", async () => {
  const page = await browser.visit(`${app.url}/docs/`);
  await page.getByRole("button", { name: "Search" }).first().click();
  await page.getByRole("searchbox").fill("SESSION_QUEUE_FULL");
  await page.getByRole("option").first().waitFor();
  await page.keyboard.press("Enter");
  await page.waitForURL((url) => url.pathname !== "/docs/");
});

async function expectNoSidewaysScroll(page: Page): Promise<void> {
  expect(await page.evaluate<number>("document.documentElement.scrollWidth - window.innerWidth")).toBeLessThanOrEqual(
    0,
  );
}
