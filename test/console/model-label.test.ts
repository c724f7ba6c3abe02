import { expect, test } from "vitest";
import { eventually, useBrowser } from "../support/browser.ts";
import { singleTeams } from "../support/single-teams.ts";
import { useTestApp } from "../support/use-app.ts";
import { choose, say, turns } from "./console.ts";

const YAML = JSON.stringify(singleTeams({ assistant: {}, ender: { model: "sim-terminate" } }));

const browser = useBrowser();
const app = useTestApp({ yaml: YAML });

test("a simulated model is labelled as such, before the first message and after", async () => {
  const page = await browser.visit(app.url);
  const badge = page.getByText("simulated model", { exact: true });
  await badge.waitFor();
  await page
    .getByText("Answers come from a simulated model: it repeats what it was sent, or follows an example’s script.")
    .waitFor();
  await say(page, "hello");
  expect(await badge.isVisible()).toBe(true);
});

test("the page says what it talks to: version, track, model, and that sessions are kept in memory", async () => {
  const page = await browser.visit(app.url);
  await page.getByText("Parley 0.0.0-test · stable · gpt-4").waitFor();
  await page.getByText("Sessions are kept in memory, until the service stops.").waitFor();
});

test("a real model has no such label", async () => {
  const page = await browser.visit(app.url);
  await page.route("**/console-config.json", (route) =>
    route.fulfill({
      json: { version: "9.9.9", track: "canary", simulatedModel: false, model: "gpt-4", teams: ["one"] },
    }),
  );
  await page.reload();
  await page.getByText("Parley 9.9.9 · canary · gpt-4").waitFor();
  expect(await page.getByText(/simulated/).count()).toBe(0);
  expect(await page.getByText(/kept in memory/).count()).toBe(0);
  // With one team there is nothing to choose.
  expect(await page.getByRole("combobox").count()).toBe(0);
});

test("the page works without its configuration", async () => {
  const page = await browser.visit(app.url);
  await page.route("**/console-config.json", (route) => route.fulfill({ status: 500, body: "" }));
  await page.reload();
  await say(page, "hello");
  await turns(page).getByText("You said: “hello”.").waitFor();
});

test("TERMINATE is not shown, neither live nor in the history", async () => {
  const page = await browser.visit(app.url);
  await choose(page, "ender");
  const turn = await say(page, "good bye");
  const reply = () => turn.locator(".reply").textContent();
  expect(await reply()).toMatch(/I repeat what I am told\.$/);
  expect(await turn.getByRole("alert").count()).toBe(0);
  await page.reload();
  await eventually(() => turns(page).locator(".reply").textContent()).toMatch(/I repeat what I am told\.$/);
  expect(await page.locator("body").textContent()).not.toMatch(/TERMI/);
});
