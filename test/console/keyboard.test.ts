import type { Page } from "playwright-core";
import { expect, test } from "vitest";
import { eventually, useBrowser } from "../support/browser.ts";
import { singleTeams } from "../support/single-teams.ts";
import { useTestApp } from "../support/use-app.ts";
import {
  actAs,
  choose,
  hasFocus,
  messageField,
  say,
  send,
  sendButton,
  sessionButtons,
  stopButton,
  styleOf,
  turns,
  untilPiece,
} from "./console.ts";

const YAML = JSON.stringify(
  singleTeams({ assistant: {}, narrator: { model: "sim-9999x20" }, brief: { model: "sim-60x20" } }),
);

const browser = useBrowser();
const app = useTestApp({ yaml: YAML, env: { DRAIN_MS: "0", MAX_TOKENS: "1000000" } });

test("Enter sends, Shift+Enter begins a line, and the field keeps the focus", async () => {
  const page = await browser.visit(app.url);
  await eventually(() => hasFocus(messageField(page))).toBe(true);
  await page.keyboard.type("first line");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("second line");
  expect(await messageField(page).inputValue()).toBe("first line\nsecond line");
  expect(app.simulated.calls.some(({ messages }) => messages.at(-1)?.content === "first line")).toBe(false);

  await page.keyboard.press("Enter");
  await turns(page).locator(".facts").waitFor();
  expect(app.simulated.calls.at(-1)?.messages.at(-1)?.content).toBe("first line\nsecond line");
  expect(await messageField(page).inputValue()).toBe("");
  await eventually(() => hasFocus(messageField(page))).toBe(true);
  expect(await turns(page).locator(".question p").textContent()).toBe("first line\nsecond line");
});

test("Enter sends nothing where there is nothing but spaces", async () => {
  const page = await browser.visit(app.url);
  await send(page, "  \n ");
  await say(page, "words");
  expect(await turns(page).count()).toBe(1);
});

test("Enter that ends an input method's composition sends nothing", async () => {
  const page = await browser.visit(app.url);
  const calls = app.simulated.callCount;
  await messageField(page).fill("にほん");
  await messageField(page).dispatchEvent("keydown", { key: "Enter", isComposing: true, bubbles: true });
  expect(await messageField(page).inputValue()).toBe("にほん");
  await messageField(page).press("Enter");
  await turns(page).getByText("You said: “にほん”.").waitFor();
  expect(app.simulated.callCount).toBe(calls + 1);
});

test("Tab goes through the page in the order that it is read in", async () => {
  const page = await browser.visit(app.url);
  await actAs(page, "somebody with one session");
  await say(page, "a session");
  await page.reload();
  await turns(page).getByText("You said: “a session”.").waitFor();
  await sessionButtons(page).first().waitFor();
  await messageField(page).fill("x");
  await page.getByRole("button", { name: "Skip to the message" }).focus();
  const stops = await tabStops(page, 10);
  expect(stops).toEqual([
    "Skip to the message",
    "New session",
    expect.stringMatching(/^a session/),
    "Delete a session",
    "Costs",
    "Documentation",
    "You are",
    "Conversation",
    "Message",
    "Team that answers",
    "Send",
  ]);
});

test("the skip link leads to the message and is in sight only while it has the focus", async () => {
  const page = await browser.visit(app.url);
  const link = page.getByRole("button", { name: "Skip to the message" });
  const top = async () => (await link.boundingBox())?.y ?? Number.NaN;
  expect(await top()).toBeLessThan(0);
  await link.focus();
  await eventually(top).toBeGreaterThanOrEqual(0);
  await page.keyboard.press("Enter");
  await eventually(() => hasFocus(messageField(page))).toBe(true);
});

test("a session is opened and deleted by keyboard, and the focus is never lost", async () => {
  const page = await browser.visit(app.url);
  await say(page, "delete me by key");
  const dialog = page.getByRole("dialog");
  const remove = page.getByRole("button", { name: "Delete delete me by key" });

  await remove.focus();
  await page.keyboard.press("Enter");
  await dialog.waitFor();
  await eventually(() => hasFocus(dialog.getByRole("button", { name: "Keep it" }))).toBe(true);
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  await eventually(() => hasFocus(remove)).toBe(true);

  await page.keyboard.press("Enter");
  await dialog.waitFor();
  await page.keyboard.press("Tab");
  await eventually(() => hasFocus(dialog.getByRole("button", { name: "Delete" }))).toBe(true);
  await page.keyboard.press("Enter");
  await dialog.waitFor({ state: "detached" });
  await remove.waitFor({ state: "detached" });
  await eventually(() => page.locator(":focus").count()).toBe(1);

  // One that is not open: nothing else on the page takes the focus.
  await say(page, "not open any more");
  await page.getByRole("button", { name: "New session" }).press("Enter");
  await say(page, "open");
  await page.getByRole("button", { name: "Delete not open any more" }).press("Enter");
  await dialog.getByRole("button", { name: "Delete" }).press("Enter");
  await dialog.waitFor({ state: "detached" });
  await eventually(() => hasFocus(page.getByRole("button", { name: "New session" }))).toBe(true);

  await say(page, "by key");
  await page.getByRole("button", { name: "New session" }).press("Enter");
  await eventually(() => hasFocus(messageField(page))).toBe(true);
  await page.getByRole("button", { name: /^open \d/ }).press("Enter");
  await turns(page).getByText("You said: “by key”.").waitFor();
  await eventually(() => hasFocus(messageField(page))).toBe(true);
});

test("Escape closes the dialog first and stops the turn next", async () => {
  const page = await browser.visit(app.url);
  await choose(page, "narrator");
  await send(page, "a story");
  await untilPiece(turns(page), 3);
  await page.getByRole("button", { name: "Delete a story" }).press("Enter");
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  expect(await stopButton(page).isVisible()).toBe(true);
  expect(app.simulated.calls.at(-1)?.state).toBe("open");
  await page.keyboard.press("Escape");
  await turns(page).locator(".end").waitFor();
});

test("Escape gives the user's name back as it was, and stops nothing", async () => {
  const page = await browser.visit(app.url);
  await choose(page, "narrator");
  await send(page, "a story");
  await untilPiece(turns(page), 3);
  const field = page.getByRole("textbox", { name: "You are" });
  await field.fill("somebody");
  await field.press("Escape");
  expect(await field.inputValue()).toBe("me");
  expect(await stopButton(page).isVisible()).toBe(true);
  await messageField(page).press("Escape");
  await turns(page).locator(".end").waitFor();
});

test("who is at the stop button when the answer ends is led back to the message", async () => {
  const page = await browser.visit(app.url);
  await choose(page, "brief");
  await send(page, "a short story");
  await stopButton(page).focus();
  await turns(page).locator(".facts").waitFor();
  await eventually(() => hasFocus(messageField(page))).toBe(true);
});

test("what has the focus can be seen", async () => {
  const page = await browser.visit(app.url);
  await messageField(page).fill("x");
  for (const role of ["New session", "Send"]) {
    const button = page.getByRole("button", { name: role });
    await page.keyboard.press("Tab");
    await button.focus();
    expect(await styleOf(button, "outline-style")).toBe("solid");
  }
  expect(await sendButton(page).isEnabled()).toBe(true);
});

/** What Tab stops at from here on, by name; the one that has the focus now comes first. */
async function tabStops(page: Page, count: number): Promise<string[]> {
  const name = async (): Promise<string> => {
    const focused = page.locator(":focus");
    const label = (await focused.getAttribute("aria-label")) ?? "";
    if (label !== "") return label;
    const id = await focused.getAttribute("id");
    const labelled = id === null ? page.locator(":focus") : page.locator(`label[for="${id}"]`);
    return ((await labelled.textContent()) ?? "").trim();
  };
  const names = [await name()];
  for (let at = 0; at < count; at++) {
    await page.keyboard.press("Tab");
    names.push(await name());
  }
  return names;
}
