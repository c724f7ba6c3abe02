import { expect, test } from "vitest";
import { useBrowser } from "../support/browser.ts";
import { useTestApp } from "../support/use-app.ts";
import { messageField } from "./console.ts";

const browser = useBrowser();
const app = useTestApp();

test("the console leads to the documentation of its own release, and that leads back", async () => {
  const page = await browser.visit(app.url);
  await page.getByRole("navigation", { name: "Pages" }).getByRole("link", { name: "Documentation" }).click();
  await page.getByRole("heading", { level: 1, name: "Parley" }).waitFor();
  expect(new URL(page.url()).pathname).toBe("/docs/");
  await page.getByRole("link", { name: "Console", exact: true }).first().click();
  await messageField(page).waitFor();
});
