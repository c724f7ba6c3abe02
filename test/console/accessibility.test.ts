import { expect, test } from "vitest";
import { eventually, useBrowser } from "../support/browser.ts";
import { singleTeams } from "../support/single-teams.ts";
import { useTestApp } from "../support/use-app.ts";
import { choose, conversation, messageField, say, send, turns, untilPiece } from "./console.ts";

const YAML = JSON.stringify(
  singleTeams({ assistant: {}, broken: { model: "sim-500" }, narrator: { model: "sim-9999x20" } }),
);

const browser = useBrowser();
const app = useTestApp({ yaml: YAML, env: { DRAIN_MS: "0", MAX_TOKENS: "1000000" } });

test("the page has landmarks and one first heading, in a language that is named", async () => {
  const page = await browser.visit(app.url);
  await say(page, "hello");
  expect(await page.locator("html").getAttribute("lang")).toBe("en");
  for (const landmark of [
    page.getByRole("complementary", { name: "Sessions" }),
    page.getByRole("navigation", { name: "Your sessions" }),
    page.getByRole("main"),
    page.getByRole("region", { name: "Conversation" }),
    page.getByRole("heading", { level: 1 }),
    page.getByRole("status"),
  ]) {
    expect(await landmark.count()).toBe(1);
  }
});

test("every button and field has a name", async () => {
  const page = await browser.visit(app.url, { viewport: { width: 360, height: 640 } });
  await say(page, "name me");
  await page.getByRole("button", { name: "Sessions", exact: true }).click();
  await page.getByRole("button", { name: "Delete name me" }).click();
  await page.getByRole("dialog", { name: "Delete this session?" }).waitFor();
  for (const role of ["button", "textbox", "combobox"] as const) {
    const all = page.getByRole(role, { includeHidden: true });
    expect(await all.count()).toBeGreaterThan(0);
    expect(await page.getByRole(role, { includeHidden: true, name: /\S/ }).count()).toBe(await all.count());
  }
});

test("a screen reader is told that the answer is waited for, and the whole answer once, not each piece", async () => {
  const page = await browser.visit(app.url);
  const status = page.getByRole("status");
  await choose(page, "narrator");
  await send(page, "a story");
  await untilPiece(turns(page), 3);
  expect(await status.textContent()).toBe("Waiting for the answer");
  expect(await status.getAttribute("aria-live")).toBe("polite");
  await page.keyboard.press("Escape");
  await eventually(() => status.textContent()).toMatch(/^piece 0 piece 1 .* Stopped\.$/);
  // The transcript itself is no live region: it would be read with every piece.
  expect(await conversation(page).locator("[aria-live]").count()).toBe(0);
});

test("an error is an alert, told once", async () => {
  const page = await browser.visit(app.url);
  await choose(page, "broken");
  await send(page, "this fails");
  await page.getByRole("alert").waitFor();
  expect(await page.getByRole("alert").count()).toBe(1);
  expect(await page.getByRole("status").textContent()).toBe("");
});

test("who said what can be heard", async () => {
  const page = await browser.visit(app.url);
  const turn = await say(page, "hello");
  expect(await turn.locator(".question").textContent()).toBe("You: hello");
  expect(await turn.locator(".reply").textContent()).toMatch(/^assistant: You said: “hello”\./);
});

test("the open session is marked, and the field says how to send", async () => {
  const page = await browser.visit(app.url);
  await say(page, "marked");
  await eventually(() => page.locator("[aria-current=page]").count()).toBe(1);
  const described = await messageField(page).getAttribute("aria-describedby");
  expect(await page.locator(`#${described}`).textContent()).toBe("Enter sends, Shift+Enter starts a new line");
});

test("the page can be used at twice the size of its text", async () => {
  // A window of 1280 pixels at 400 % is 320 wide: https://www.w3.org/TR/WCAG22/#reflow
  const page = await browser.visit(app.url, { viewport: { width: 320, height: 256 } });
  await say(page, "hello");
  expect(await page.evaluate<number>("document.documentElement.scrollWidth - window.innerWidth")).toBeLessThanOrEqual(
    0,
  );
  expect(await messageField(page).isVisible()).toBe(true);
});
