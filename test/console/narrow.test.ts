import type { Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually, useBrowser } from "../support/browser.ts";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { hasFocus, messageField, say, sendButton, sessionButtons, turns } from "./console.ts";

const browser = useBrowser();
let app: TestApp;
beforeAll(async () => {
  app = await startTestApp();
});
afterAll(() => app.close());

const visit = () => browser.visit(app.url, { viewport: { width: 360, height: 640 } });
const menu = (page: Page) => page.getByRole("button", { name: "Sessions", exact: true });
const drawer = (page: Page) => page.getByRole("complementary", { name: "Sessions" });

async function expectNoSidewaysScroll(page: Page): Promise<void> {
  expect(await page.evaluate<number>("document.documentElement.scrollWidth - window.innerWidth")).toBeLessThanOrEqual(
    0,
  );
}

test("at 360 pixels all of it fits, and nothing scrolls sideways", async () => {
  const page = await visit();
  await expectNoSidewaysScroll(page);
  await say(page, "hello from a telephone");
  await expectNoSidewaysScroll(page);
  for (const part of [
    messageField(page),
    sendButton(page),
    page.getByText("simulated model", { exact: true }),
    menu(page),
  ]) {
    const box = await part.boundingBox();
    expect(box === null ? "not in sight" : box.x >= 0 && box.x + box.width <= 360).toBe(true);
  }
  await menu(page).click();
  await drawer(page).waitFor();
  await expectNoSidewaysScroll(page);
  await page.getByRole("button", { name: "Delete hello from a telephone" }).click();
  await page.getByRole("dialog").waitFor();
  await expectNoSidewaysScroll(page);
});

test("the sessions are a drawer: opened by its button, left by choosing a session", async () => {
  const page = await visit();
  await say(page, "the first");
  expect(await drawer(page).count()).toBe(0);

  await menu(page).click();
  await drawer(page).waitFor();
  expect(await hasFocus(page.getByRole("button", { name: "New session" }))).toBe(true);
  await page.getByRole("button", { name: "New session" }).click();
  await eventually(() => drawer(page).count()).toBe(0);
  await page.getByText("Say something.").waitFor();
  await say(page, "the second");

  await menu(page).click();
  await sessionButtons(page).getByText("the first").click();
  await eventually(() => drawer(page).count()).toBe(0);
  await turns(page).getByText("You said: “the first”.").waitFor();
  await eventually(() => hasFocus(messageField(page))).toBe(true);
});

test.each(["Escape", "a click beside it"])(
  "%s closes the drawer, and the focus goes back to its button",
  async (how) => {
    const page = await visit();
    await menu(page).click();
    await drawer(page).waitFor();
    // What lies behind it cannot be reached.
    expect(await page.locator("main[inert]").count()).toBe(1);
    if (how === "Escape") await page.keyboard.press("Escape");
    else await page.getByRole("button", { name: "Close the sessions" }).click({ position: { x: 350, y: 300 } });
    await eventually(() => drawer(page).count()).toBe(0);
    expect(await menu(page).getAttribute("aria-expanded")).toBe("false");
    expect(await hasFocus(menu(page))).toBe(true);
  },
);

test("a window that grows shows the sessions beside the conversation", async () => {
  const page = await visit();
  await menu(page).click();
  await drawer(page).waitFor();
  await page.setViewportSize({ width: 1000, height: 640 });
  await eventually(() => page.getByRole("button", { name: "Close the sessions" }).count()).toBe(0);
  await say(page, "hello");
  expect(await drawer(page).isVisible()).toBe(true);
  expect(await menu(page).isVisible()).toBe(false);
});

test("a long message does not push the conversation or the send button out of the window", async () => {
  const page = await visit();
  await messageField(page).fill("line\n".repeat(100));
  const box = await sendButton(page).boundingBox();
  expect((box?.y ?? 1_000) + (box?.height ?? 0)).toBeLessThanOrEqual(640);
  expect((await messageField(page).boundingBox())?.height).toBeLessThan(300);
});
