import type { Page } from "playwright-core";
import { describe, expect, test } from "vitest";
import { useBrowser } from "../support/browser.ts";
import { textContrasts } from "../support/contrast.ts";
import { singleTeams } from "../support/single-teams.ts";
import { useTestApp } from "../support/use-app.ts";
import { choose, messageField, say, send, styleOf, turns, untilPiece } from "./console.ts";

const YAML = JSON.stringify(
  singleTeams({ assistant: {}, broken: { model: "sim-500" }, narrator: { model: "sim-9999x20" } }),
);

const browser = useBrowser();
const app = useTestApp({ yaml: YAML, env: { DRAIN_MS: "0", MAX_TOKENS: "1000000" } });

/** Level AA of WCAG 2.2 for text of any size: https://www.w3.org/TR/WCAG22/#contrast-minimum */
const LEAST_CONTRAST = 4.5;

async function expectReadable(page: Page): Promise<void> {
  const contrasts = await textContrasts(page);
  expect(contrasts.length).toBeGreaterThan(5);
  expect(contrasts.filter(({ ratio }) => ratio < LEAST_CONTRAST)).toEqual([]);
}

describe.each(["light", "dark"] as const)("in %s", (colorScheme) => {
  test("the page follows the system, its form fields too", async () => {
    const page = await browser.visit(app.url, { colorScheme });
    const ground = brightness(await styleOf(page.locator("body"), "background-color"));
    const text = brightness(await styleOf(page.locator("body"), "color"));
    expect(ground > text).toBe(colorScheme === "light");
    expect(await styleOf(page.locator("html"), "color-scheme")).toBe("light dark");
    const field = brightness(await styleOf(page.getByRole("textbox", { name: "You are" }), "background-color"));
    expect(field > 128).toBe(colorScheme === "light");
  });

  test("all text can be read: the empty page, a conversation, an error, the dialog", async () => {
    const page = await browser.visit(app.url, { colorScheme, reducedMotion: "reduce" });
    await page.getByText("Say something.").waitFor();
    await expectReadable(page);
    await say(page, "code:\n```\nx = 1\n```\nand text");
    await page.getByText("This session so far").waitFor();
    await expectReadable(page);
    await choose(page, "broken");
    await send(page, "this fails");
    await turns(page).getByRole("alert").waitFor();
    await messageField(page).fill("x".repeat(10_001));
    await page.getByText("10,001 / 10,000").waitFor();
    await expectReadable(page);
    await page.locator(".session-delete").first().press("Enter");
    await page.getByRole("dialog").waitFor();
    await expectReadable(page);
  });

  test("all text can be read on a narrow screen, while an answer comes and in the drawer", async () => {
    const viewport = { width: 360, height: 640 };
    const page = await browser.visit(app.url, { colorScheme, viewport, reducedMotion: "reduce" });
    await choose(page, "narrator");
    await send(page, "a story");
    await untilPiece(turns(page), 3);
    await expectReadable(page);
    await page.keyboard.press("Escape");
    await turns(page).locator(".end").waitFor();
    await expectReadable(page);
    await page.getByRole("button", { name: "Sessions", exact: true }).click();
    await page.getByRole("complementary", { name: "Sessions" }).waitFor();
    await expectReadable(page);
  });
});

test("a change of the system's colours is followed without a reload", async () => {
  const page = await browser.visit(app.url, { colorScheme: "light" });
  const ground = () => styleOf(page.locator("body"), "background-color");
  const light = brightness(await ground());
  await page.emulateMedia({ colorScheme: "dark" });
  expect(brightness(await ground())).toBeLessThan(light);
});

test("who wants no motion gets none", async () => {
  const page = await browser.visit(app.url, { reducedMotion: "reduce" });
  await choose(page, "narrator");
  await send(page, "a story");
  const caret = page.locator(".reply-open");
  await caret.waitFor();
  const animations = await page.evaluate<number>("document.getAnimations().length");
  expect(animations).toBe(0);
});

test("forced colours leave text, fields and buttons in sight", async () => {
  const page = await browser.visit(app.url, { forcedColors: "active" });
  await say(page, "hello");
  for (const part of [messageField(page), page.getByRole("button", { name: "New session" })]) {
    expect(
      await styleOf(part.locator("xpath=ancestor-or-self::*[self::form or self::button][1]"), "border-top-style"),
    ).toBe("solid");
  }
  expect(await turns(page).locator(".question").isVisible()).toBe(true);
});

/** 0 to 255. */
function brightness(rgb: string): number {
  const parts = (rgb.match(/[\d.]+/g) ?? []).slice(0, 3).map(Number);
  return parts.reduce((sum, part) => sum + part, 0) / 3;
}
