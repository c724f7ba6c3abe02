import type { Page } from "playwright-core";
import { expect, test } from "vitest";
import { eventually, useBrowser } from "../support/browser.ts";
import { singleTeams } from "../support/single-teams.ts";
import { useTestApp } from "../support/use-app.ts";
import { choose, hasFocus, messageField, say, send, sendButton, sessionButtons, turns, untilPiece } from "./console.ts";

const YAML = JSON.stringify(singleTeams({ assistant: {}, narrator: { model: "sim-9999x20" } }));

const browser = useBrowser();
const app = useTestApp({ yaml: YAML, env: { DRAIN_MS: "0", MAX_TOKENS: "1000000" } });

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
  await eventually(() => hasFocus(page.getByRole("button", { name: "New session" }))).toBe(true);
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
    await eventually(() => hasFocus(menu(page))).toBe(true);
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

test("all that can be done while an answer comes fits as well", async () => {
  const page = await visit();
  await choose(page, "narrator");
  await send(page, "a story");
  await untilPiece(turns(page), 3);
  await messageField(page).fill("next");
  for (const name of ["Interrupt", "Stop", "Send"]) {
    const box = await page.getByRole("button", { name }).boundingBox();
    expect(box === null ? "not in sight" : box.x >= 0 && box.x + box.width <= 360).toBe(true);
  }
  await expectNoSidewaysScroll(page);
  expect((await page.locator(".composer").boundingBox())?.height).toBeLessThan(140);
  await page.keyboard.press("Escape");
  await turns(page).locator(".end").waitFor();
});

test("a long message does not push the conversation or the send button out of the window", async () => {
  const page = await visit();
  await messageField(page).fill("line\n".repeat(100));
  const box = await sendButton(page).boundingBox();
  expect((box?.y ?? 1_000) + (box?.height ?? 0)).toBeLessThanOrEqual(640);
  expect((await messageField(page).boundingBox())?.height).toBeLessThan(300);
});
