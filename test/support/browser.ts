import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect } from "vitest";
import { launchChromium } from "./chromium.ts";

/** Longest wait for something that a page should come to show, in milliseconds. */
const WAIT_MS = 30_000;

/** The browser's own line about an answer that is an error: not the page's fault. */
const FAILED_LOAD = "Failed to load resource";

export interface VisitOptions extends BrowserContextOptions {
  /** Whether what the browser complains of fails the test. Default: yes. */
  readonly watched?: boolean;
}

/** How a test visits the console. */
export interface Visitor {
  /** Opens a page in a profile of its own: nothing is remembered, nothing is shared. */
  visit(url: string, options?: VisitOptions): Promise<Page>;
  /** Opens another tab of a page's browser. */
  open(beside: Page, url: string): Promise<Page>;
}

/**
 * The system's Chromium for the tests of a file. Each test's pages are closed after it; a test fails when a page of it
 * threw, wrote to the browser's console, or asked another origin for anything.
 */
export function useBrowser(): Visitor {
  let browser: Browser;
  let pages: Page[] = [];
  let troubles: string[] = [];

  beforeAll(async () => {
    browser = await launchChromium();
  });
  afterAll(() => browser?.close());
  afterEach(async () => {
    const [opened, seen] = [pages, troubles];
    [pages, troubles] = [[], []];
    await Promise.all(opened.map((page) => page.context().close()));
    expect(seen).toEqual([]);
  });

  const watch = (page: Page, url: string): void => {
    const { origin } = new URL(url);
    page.on("pageerror", (error) => troubles.push(`thrown: ${error.message}`));
    page.on("crash", () => troubles.push("the page crashed"));
    page.on("console", (message) => {
      const told = message.type() === "error" || message.type() === "warning";
      if (told && !message.text().startsWith(FAILED_LOAD)) troubles.push(`${message.type()}: ${message.text()}`);
    });
    page.on("request", (request) => {
      if (new URL(request.url()).origin !== origin) troubles.push(`asked elsewhere: ${request.url()}`);
    });
  };

  return {
    async visit(url, { watched = true, ...options } = {}) {
      const context = await browser.newContext(options);
      const page = await context.newPage();
      pages.push(page);
      page.setDefaultTimeout(WAIT_MS);
      if (watched) watch(page, url);
      await page.goto(url);
      return page;
    },
    async open(beside, url) {
      const page = await beside.context().newPage();
      page.setDefaultTimeout(WAIT_MS);
      watch(page, url);
      await page.goto(url);
      return page;
    },
  };
}

/** Waits until what is read is as the matcher says, as `expect.poll` does; fails with the last value that was read. */
export function eventually<T>(read: () => T | Promise<T>) {
  return expect.poll(read, { timeout: WAIT_MS, interval: 20 });
}
