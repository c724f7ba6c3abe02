import type { Page } from "playwright-core";
import { beforeAll, describe, expect, test } from "vitest";
import { eventually, useBrowser } from "../support/browser.ts";
import { textContrasts } from "../support/contrast.ts";
import { useTestApp } from "../support/use-app.ts";
import { hasFocus } from "./console.ts";
import { settle, spend } from "./spent.ts";

// The Costs page for everybody: by keyboard, by screen reader, in light and dark, on a narrow screen.

const budgets = [
  { scope: "team", id: "red", period: "month", limit_micro_usd: 10_000_000, limit_tokens: 5_000_000 },
  { scope: "team", id: "blue", period: "month", limit_micro_usd: 1, dry_run: true },
];

const browser = useBrowser();
const app = useTestApp({ yaml: JSON.stringify({ budgets }), withUsage: true });
beforeAll(() => spend(app.stores.accounts));

const WEEK = "range=week&each=day";
const visit = (query: string, options?: Parameters<typeof browser.visit>[1]) =>
  browser.visit(`${app.url}/#/costs?${query}`, options);
const groupsTable = (page: Page) => page.getByRole("table", { name: /^Spend by/ });

test("by keyboard: the page is reached, a group is opened, and the focus goes with it", async () => {
  const page = await browser.visit(app.url);
  await page.getByRole("link", { name: "Costs", exact: true }).focus();
  await page.keyboard.press("Enter");
  await groupsTable(page).waitFor();
  expect(await page.title()).toBe("Costs · Parley");
  await page.getByRole("button", { name: "Skip to the costs" }).press("Enter");
  await eventually(() => hasFocus(page.locator("#costs"))).toBe(true);
  await page.keyboard.press("Tab");
  expect(await hasFocus(page.getByRole("combobox", { name: "Time" }))).toBe(true);
  await groupsTable(page).getByRole("link", { name: "blue" }).press("Enter");
  await eventually(() => hasFocus(page.getByRole("heading", { name: "blue" }))).toBe(true);
  const figures = page.getByRole("button", { name: "Show the figures" });
  await figures.press("Enter");
  await eventually(() => page.getByRole("button", { name: "Hide the figures" }).getAttribute("aria-expanded")).toBe(
    "true",
  );
});

test("the page has one first heading and a name for every field, button and picture", async () => {
  const page = await visit("by=team");
  await groupsTable(page).waitFor();
  expect(await page.getByRole("heading", { level: 1 }).count()).toBe(1);
  for (const role of ["button", "combobox", "img", "link", "table"] as const) {
    const all = page.getByRole(role);
    expect(await all.count()).toBeGreaterThan(0);
    expect(await page.getByRole(role, { name: /\S/ }).count()).toBe(await all.count());
  }
});

const VIEWS = [
  "by=team",
  "by=team&group=red",
  "session=red-session-1",
  "session=red-session-1&turn=red-session-1.turn-1-0",
];

describe.each(["light", "dark"] as const)("in %s", (colorScheme) => {
  test.each(VIEWS)("all text of %s can be read", async (query) => {
    const page = await visit(`${WEEK}&${query}`, { colorScheme });
    await page.locator(".costs-sum").waitFor();
    const contrasts = await textContrasts(page);
    expect(contrasts.length).toBeGreaterThan(5);
    expect(contrasts.filter(({ ratio }) => ratio < 4.5)).toEqual([]);
  });
});

test("the chart says whose hours and days it has, and a button is as wide as its words", async () => {
  const page = await visit(`${WEEK}&by=team`);
  await page.getByText("Days are UTC").waitFor();
  await page.getByRole("combobox", { name: "Time" }).selectOption("day");
  await page.getByText("Hours are UTC").waitFor();
  for (let index = 0; index < 51; index += 1) {
    await settle(app.stores.accounts, {
      recordId: `crowd-${index}`,
      userId: `crowd-${index}`,
      team: "crowd",
      costMicroUsd: 1n,
    });
  }
  await page.getByRole("combobox", { name: "By" }).selectOption("user");
  const more = page.getByRole("button", { name: /^Show all \d+$/ });
  expect((await more.boundingBox())?.width).toBeLessThan(200);
  await more.click();
  await groupsTable(page).getByRole("link", { name: "crowd-50" }).waitFor();
});

test.each(VIEWS)("at 360 pixels %s fits: only tables scroll, within themselves", async (query) => {
  const page = await visit(`${WEEK}&${query}`, { viewport: { width: 360, height: 640 } });
  await page.locator(".costs-sum").waitFor();
  expect(await page.evaluate<number>("document.documentElement.scrollWidth - window.innerWidth")).toBeLessThanOrEqual(
    0,
  );
  const inner = await page.locator("#costs").evaluate((node): number => node.scrollWidth - node.clientWidth);
  expect(inner).toBeLessThanOrEqual(0);
  for (const name of ["Refresh", "Download CSV"]) {
    const box = await page.getByRole("button", { name }).boundingBox();
    expect(box === null ? "not in sight" : box.x >= 0 && box.x + box.width <= 360).toBe(true);
  }
});
