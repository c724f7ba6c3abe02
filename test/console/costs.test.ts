import { readFile } from "node:fs/promises";
import type { Locator, Page } from "playwright-core";
import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import type { UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import { call, startedCall } from "../accounts/calls.ts";
import { eventually, useBrowser } from "../support/browser.ts";
import { ledgerOf } from "../support/ledger.ts";
import { useTestApp } from "../support/use-app.ts";
import { hasFocus, messageField, say, sessionButtons, turns } from "./console.ts";
import { settle, spend } from "./spent.ts";

// What the Costs page shows is what the ledger has, to the micro-dollar, at each step of the way down.

const budgets = [
  { scope: "tenant", period: "month", limit_micro_usd: 2_000_000_000 },
  { scope: "team", id: "red", period: "month", limit_micro_usd: 10_000_000, limit_tokens: 5_000_000 },
  { scope: "team", id: "blue", period: "month", limit_micro_usd: 1, dry_run: true },
  { scope: "user", id: "*", period: "day", limit_micro_usd: 100_000_000 },
];

const browser = useBrowser();
const app = useTestApp({ yaml: JSON.stringify({ budgets }), withUsage: true });

let rows: UsageRecord[] = [];
beforeAll(async () => {
  await spend(app.stores.accounts);
  rows = await ledgerOf(app.stores.accounts, "default");
});

/** All of the ledger is within a week, whatever the hour. */
const WEEK = "range=week&each=day";
const visit = (query: string, options?: Parameters<typeof browser.visit>[1]) =>
  browser.visit(`${app.url}/#/costs?${query}`, options);
const sumOf = (chosen: readonly UsageRecord[]): bigint =>
  chosen.reduce((sum, { costMicroUsd }) => sum + costMicroUsd, 0n);
const table = (page: Page, name: string | RegExp): Locator => page.getByRole("table", { name });
const groupsTable = (page: Page): Locator => table(page, /^Spend by/);

/** What a text of the page says in micro US dollars; undefined: it has no amount. */
function microUsdOf(text: string | null): bigint | undefined {
  const [, minus, whole, fraction] = /(−?)\$([\d,]+)\.(\d{2,6})/.exec(text ?? "") ?? [];
  if (whole === undefined || fraction === undefined) return undefined;
  return BigInt(`${minus === "" ? "" : "-"}${whole.replaceAll(",", "")}${fraction.padEnd(6, "0")}`);
}

/** The last cell of each row of a table's body, by the row's head. */
async function amountsOf(of: Locator): Promise<Map<string, bigint | undefined>> {
  await of.locator("tbody tr").first().waitFor();
  const lines = await of.locator("tbody tr").evaluateAll((all): [string, string][] =>
    all.map((row) => {
      const head = row.querySelector("th").cloneNode(true);
      // There for narrow screens only.
      head.querySelector(".costs-narrow")?.remove();
      return [head.textContent.trim(), row.lastElementChild.textContent];
    }),
  );
  return new Map(lines.map(([name, amount]) => [name, microUsdOf(amount)]));
}

async function totalOf(page: Page): Promise<bigint | undefined> {
  await page.locator(".costs-sum").waitFor();
  return microUsdOf(await page.locator(".costs-sum").textContent());
}

describe.each([
  ["team", (row: UsageRecord) => row.team, "No team"],
  ["user", (row: UsageRecord) => row.userId, "No user"],
  ["use_case", (row: UsageRecord) => row.useCase, "No use case"],
  ["agent", (row: UsageRecord) => row.agent, "No agent"],
  ["model", (row: UsageRecord) => row.model, "No model"],
  ["version", (row: UsageRecord) => row.version, "No version"],
] as const)("by %s", (by, nameOf, none) => {
  test("each group's sum and their total are the ledger's", async () => {
    const page = await visit(`${WEEK}&by=${by}`);
    const shown = await amountsOf(groupsTable(page));
    const inLedger = Map.groupBy(rows, nameOf);
    expect(shown).toEqual(new Map([...inLedger].map(([name, all]) => [name || none, sumOf(all)])));
    expect(await totalOf(page)).toBe(sumOf(rows));
    expect(microUsdOf(await groupsTable(page).locator("tfoot").textContent())).toBe(sumOf(rows));
  });
});

test.each([
  ["hour", "range=week&each=hour", 168],
  ["day", "range=week&each=day", 7],
])("a bar is one %s, and its figures stand in a table: together they are the ledger's sum", async (_, query, count) => {
  const page = await visit(`${query}&by=team`);
  const figures = await amountsOf(table(page, /^Spend over time by team/));
  expect(figures.size).toBe(count);
  const amounts = [...figures.values()];
  expect(amounts.reduce((sum: bigint, amount) => sum + (amount ?? 0n), 0n)).toBe(sumOf(rows));
  const drawn = amounts.filter((amount) => amount !== 0n).length;
  expect(await page.locator(".costs-bar:has(.costs-part)").count()).toBe(drawn);
});

test("the highest bar is as high as its amount on the scale says", async () => {
  const page = await visit("range=week&each=day&by=model");
  const figures = await amountsOf(table(page, /^Spend over time/));
  const ratios: number[] = [];
  for (const [index, amount] of [...figures.values()].entries()) {
    const heights = await page
      .locator(".costs-bar")
      .nth(index)
      .locator(".costs-part")
      .evaluateAll((parts): number[] => parts.map((part) => Number(part.getAttribute("height"))));
    // Between two parts there is a pixel of ground.
    const height = heights.reduce((sum, each) => sum + each, 0) + Math.max(0, heights.length - 1);
    if (amount !== undefined && amount > 0n) ratios.push(height / Number(amount));
  }
  expect(ratios.length).toBeGreaterThan(0);
  for (const ratio of ratios) expect(ratio / (ratios[0] ?? 0)).toBeCloseTo(1, 1);
});

test("the way leads from a team to its sessions, to a turn, to the turn's agents and calls, and back", async () => {
  const page = await visit(`${WEEK}&by=team`);
  const ofRed = rows.filter(({ team }) => team === "red");
  await groupsTable(page).getByRole("link", { name: "red" }).click();
  await page.getByRole("heading", { name: "red" }).waitFor();
  const sessions = Map.groupBy(ofRed, ({ sessionId }) => sessionId);
  await eventually(() => totalOf(page)).toBe(sumOf(ofRed));
  expect(await amountsOf(table(page, /^Spend by session/))).toEqual(
    new Map([...sessions].map(([name, all]) => [name, sumOf(all)])),
  );

  const [sessionId = ""] = [...sessions.keys()];
  const ofSession = sessions.get(sessionId) ?? [];
  await table(page, /^Spend by session/)
    .getByRole("link", { name: sessionId })
    .click();
  await eventually(() => totalOf(page)).toBe(sumOf(ofSession));
  const turnsTable = table(page, "Spend by turn");
  const byTurn = Map.groupBy(ofSession, ({ turnId }) => turnId);
  expect(await turnsTable.locator("tbody tr").count()).toBe(byTurn.size);

  const link = turnsTable.getByRole("link").first();
  const turnId = (await link.getAttribute("title")) ?? "";
  const ofTurn = byTurn.get(turnId) ?? [];
  await link.click();
  await page.getByRole("heading", { name: /^Turn/ }).waitFor();
  await eventually(() => totalOf(page)).toBe(sumOf(ofTurn));
  expect(await amountsOf(table(page, "Spend by agent"))).toEqual(
    new Map(ofTurn.map(({ agent, costMicroUsd }) => [agent, costMicroUsd])),
  );
  const calls = table(page, /^Model calls/);
  expect(await calls.locator("tbody tr").count()).toBe(ofTurn.length);
  for (const { agent, model, promptTokens } of ofTurn) {
    const row = calls.locator("tbody tr", { hasText: agent });
    expect(await row.textContent()).toContain(model);
    expect(await row.textContent()).toContain(promptTokens.toLocaleString("en"));
  }

  // The address is the whole state: a reload stays, the browser's back goes a step up.
  await page.reload();
  expect(await totalOf(page)).toBe(sumOf(ofTurn));
  await page.goBack();
  await eventually(() => totalOf(page)).toBe(sumOf(ofSession));
  await page.getByRole("navigation", { name: "What is shown" }).getByRole("link", { name: "All" }).click();
  await eventually(() => totalOf(page)).toBe(sumOf(rows));
});

test("a session that a group leads to shows the group's part, and all of it when asked", async () => {
  const page = await visit(`${WEEK}&by=agent&group=critic`);
  await table(page, /^Spend by session/)
    .getByRole("link", { name: "blue-session-2" })
    .click();
  const all = rows.filter(({ sessionId }) => sessionId === "blue-session-2");
  await page.getByText("Of critic only.").waitFor();
  expect(await totalOf(page)).toBe(sumOf(all.filter(({ agent }) => agent === "critic")));
  await page.getByRole("link", { name: "Show all of it" }).click();
  await eventually(() => totalOf(page)).toBe(sumOf(all));
});

test("the way down reads what is shown, not all that was spent", async () => {
  const page = await visit(`${WEEK}&by=team`);
  await groupsTable(page).getByRole("link", { name: "red" }).waitFor();
  const answerTo = async (method: string, act: () => Promise<void>): Promise<string> => {
    const [response] = await Promise.all([page.waitForResponse((one) => one.url().includes(method)), act()]);
    await response.finished();
    return (await response.body()).toString("latin1");
  };
  const sessions = await answerTo("/QueryUsage", () => groupsTable(page).getByRole("link", { name: "red" }).click());
  expect(sessions).toContain("red-session-1");
  expect(sessions).not.toMatch(/(blue|green)-session/);
  const turnRows = await answerTo("/ExportUsage", () =>
    table(page, /^Spend by session/)
      .getByRole("link", { name: "red-session-1" })
      .click(),
  );
  expect(turnRows).toContain("red-session-1.turn-");
  expect(turnRows).not.toMatch(/red-session-[02-4]|(blue|green)-session/);
});

describe("the CSV", () => {
  async function csvOf(page: Page): Promise<Record<string, string>[]> {
    await page.locator(".costs-sum").waitFor();
    const [download] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("button", { name: "Download CSV" }).click(),
    ]);
    expect(download.suggestedFilename()).toMatch(/^costs-[A-Za-z0-9._-]+\.csv$/);
    const [head = "", ...lines] = (await readFile(await download.path(), "utf8")).trimEnd().split("\r\n");
    const names = head.split(",");
    return lines.map((line) => Object.fromEntries(line.split(",").map((value, index) => [names[index] ?? "", value])));
  }

  test.each([
    ["all", "by=team", () => true],
    ["one group", "by=team&group=green", ({ team }: UsageRecord) => team === "green"],
    ["one session", "session=red-session-0", ({ sessionId }: UsageRecord) => sessionId === "red-session-0"],
  ])("of %s has the ledger's rows of what is shown, and its sum is the sum on the page", async (_, query, chosen) => {
    const page = await visit(`${WEEK}&${query}`);
    const lines = await csvOf(page);
    const expected = rows.filter(chosen);
    expect(lines.map((line) => line.record_id)).toEqual(expected.map(({ recordId }) => recordId));
    const sum = lines.reduce((total, line) => total + BigInt(line.cost_micro_usd ?? ""), 0n);
    expect(sum).toBe(sumOf(expected));
    expect(sum).toBe(await totalOf(page));
    const inUsd = lines.reduce((total, line) => total + BigInt((line.cost_usd ?? "").replace(".", "")), 0n);
    expect(inUsd).toBe(sum);
  });
});

test("budgets show what is spent, held and left, and what refuses nobody", async () => {
  const { accounts } = app.stores;
  const holding = { tenant: "default", team: "red", costMicroUsd: 123_456n, promptTokens: 700n, completionTokens: 77n };
  await startedCall(accounts, call("under way", holding), "me");
  onTestFinished(() => accounts.release({ tenant: "default", callId: "under way" }, "me"));
  const page = await visit("by=team");
  const item = (name: string): Locator => page.getByRole("listitem").filter({ hasText: name });
  const red = item("Team red, per month");
  await red.waitFor();
  // The last 22 hours may have begun in another month: the budgets have their own clock, which is the store's.
  const [spent = 0n, held, left] = await factsOf(red, "$");
  expect(spent).toBe((await budgetNamed("red"))?.spentMicroUsd);
  expect(held).toBe(123_456n);
  expect(left).toBe(10_000_000n - spent - 123_456n);
  expect(await red.textContent()).toContain("Held777 tokens");
  expect(await red.textContent()).toContain("Limit5,000,000 tokens");
  expect(await red.getByRole("img").count()).toBe(2);
  expect(await item("Team blue, per month").textContent()).toContain("dry run: refuses nobody");
  const each = item("Each user without a budget of its own, per day");
  expect(await each.textContent()).toContain("Limit$100.00");
  expect(await each.textContent()).not.toContain("Spent");
});

async function budgetNamed(id: string) {
  return (await app.stores.accounts.budgets("default")).find(({ scope }) => scope?.scope.value === id);
}

/** The first three amounts of a budget. */
async function factsOf(budget: Locator, currency: string): Promise<(bigint | undefined)[]> {
  const texts = await budget.locator("dd").allTextContents();
  return texts.filter((text) => text.startsWith(currency)).map(microUsdOf);
}

test("a turn that was just talked through is on the page, and the conversation waits behind it", async () => {
  const page = await visit("by=user");
  await page.locator(".costs-sum").waitFor();
  await page.getByRole("button", { name: "New session" }).click();
  await say(page, "what does this cost?");
  await page.getByRole("link", { name: "Costs", exact: true }).click();
  await page.getByRole("combobox", { name: "By" }).selectOption("user");
  await groupsTable(page).getByRole("link", { name: "me", exact: true }).waitFor();
  const paid = (await ledgerOf(app.stores.accounts, "default")).filter(({ userId }) => userId === "me");
  rows = await ledgerOf(app.stores.accounts, "default");
  expect(paid.length).toBeGreaterThan(0);
  expect((await amountsOf(groupsTable(page))).get("me")).toBe(sumOf(paid));
  await sessionButtons(page).first().click();
  await turns(page).getByText("You said: “what does this cost?”.").waitFor();
  await eventually(() => hasFocus(messageField(page))).toBe(true);
});

test("tokens without a known price are told", async () => {
  const record = { recordId: "odd", team: "odd", model: "odd", priceVersion: "", promptTokens: 3_000n };
  await settle(app.stores.accounts, { ...record, completionTokens: 204n, userId: "odd", sessionId: "odd" });
  rows = await ledgerOf(app.stores.accounts, "default");
  const page = await visit(`${WEEK}&by=team`);
  await page.getByText("3,204 tokens have no known price: they cost the default one.").waitFor();
  expect(await totalOf(page)).toBe(sumOf(rows));
});

test("a time in which nothing was spent says so", async () => {
  const page = await visit("session=none");
  await page.getByText("Nothing was spent in this time.").waitFor();
});

test("time, bars and groups are chosen on the page, and stand in its address", async () => {
  const page = await visit("");
  await page.getByRole("combobox", { name: "By" }).selectOption("model");
  await groupsTable(page).getByRole("link", { name: "o3" }).waitFor();
  await page.getByRole("combobox", { name: "Time" }).selectOption("month");
  await table(page, "Spend by model, last 30 days").waitFor();
  expect(new URL(page.url()).hash).toBe("#/costs?range=month&each=day&by=model");
  const hours = page.getByRole("combobox", { name: "A bar is" }).getByRole("option", { name: "an hour" });
  expect(await hours.isDisabled()).toBe(true);
});
