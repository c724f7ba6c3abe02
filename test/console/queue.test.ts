import { afterAll, beforeAll, test } from "vitest";
import { eventually, useBrowser } from "../support/browser.ts";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { send, stopButton, turns } from "./console.ts";

const browser = useBrowser();
let app: TestApp;
beforeAll(async () => {
  app = await startTestApp({ model: "sim-9999x20" });
});
afterAll(() => app.close());

test("a turn that waits for another says so, begins when that one ends, and can be stopped while it waits", async () => {
  const first = await browser.visit(app.url);
  await send(first, "a story");
  await turns(first)
    .getByText(/piece 3\b/)
    .waitFor();

  const second = await browser.visit(first.url());
  await send(second, "another story");
  await turns(second).getByText("Waiting: 1 turn ahead").waitFor();
  await eventually(() => second.getByRole("status").textContent()).toBe("Waiting: 1 turn ahead");
  const third = await browser.visit(first.url());
  await send(third, "a third story");
  await turns(third).getByText("Waiting: 2 turns ahead").waitFor();
  await stopButton(third).click();
  await turns(third).locator(".end").getByText("Stopped.").waitFor();

  await stopButton(first).click();
  await turns(second)
    .locator(".reply-open")
    .getByText(/piece 3\b/)
    .waitFor();
  await stopButton(second).click();
  await turns(second).locator(".end").getByText("Stopped.").waitFor();
});
