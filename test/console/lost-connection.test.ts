import { expect, onTestFinished, test } from "vitest";
import { eventually, useBrowser } from "../support/browser.ts";
import { useTestApp } from "../support/use-app.ts";
import { send, turns, untilPiece } from "./console.ts";
import { type OneOrigin, startOneOrigin } from "./one-origin.ts";

// The service is well; what lies between is not.

const browser = useBrowser();
const app = useTestApp({ model: "sim-100x30", env: { DRAIN_MS: "0" } });

const WHOLE = Array.from({ length: 100 }, (_, index) => `piece ${index}`).join(" ");
const LOST = "The connection was lost. The answer goes on here as soon as it is back.";

async function startNetwork(): Promise<OneOrigin> {
  const network = await startOneOrigin(app.url);
  onTestFinished(() => network.close());
  return network;
}

test("a connection that is cut amid an answer comes back by itself, and no word is lost or doubled", async () => {
  const network = await startNetwork();
  const page = await browser.visit(network.url);
  const calls = app.simulated.callCount;
  await send(page, "a story");
  await untilPiece(turns(page), 3);
  network.cut();
  await turns(page).getByText(LOST).waitFor();
  expect(await page.getByRole("alert").count()).toBe(0);
  network.mend();
  await turns(page).locator(".facts").waitFor();
  expect(await turns(page).locator(".disconnected").count()).toBe(0);
  expect((await turns(page).locator(".reply .text").textContent())?.trim()).toBe(WHOLE);
  expect(app.simulated.callCount).toBe(calls + 1);
});

test("it reads on after the last event that it has, and not from the beginning", async () => {
  const network = await startNetwork();
  const page = await browser.visit(network.url);
  const bodies: string[] = [];
  page.on("request", (request) => {
    if (request.url().endsWith("/ResumeTurn")) bodies.push(request.postDataBuffer()?.subarray(5).toString() ?? "");
  });
  await send(page, "a story");
  await untilPiece(turns(page), 3);
  network.cut();
  network.mend();
  await turns(page).locator(".facts").waitFor();
  expect(bodies.length).toBeGreaterThan(0);
  for (const body of bodies) expect(Number(JSON.parse(body).afterSequence)).toBeGreaterThan(4);
});

test("an answer that is lost on its way is the same turn when the message is sent again", async () => {
  const network = await startNetwork();
  const page = await browser.visit(network.url);
  const calls = app.simulated.callCount;
  const keys = new Set<string>();
  page.on("request", (request) => {
    const body = request.url().endsWith("/StreamChat") ? request.postDataBuffer()?.subarray(5).toString() : undefined;
    if (body !== undefined) keys.add(JSON.parse(body).idempotencyKey);
  });
  await page.getByText("Say something.").waitFor();
  await eventually(() => page.getByText("No sessions yet.").or(page.locator(".session")).count()).toBeGreaterThan(0);
  network.hold(true);
  await send(page, "a story");
  await eventually(() => app.simulated.callCount).toBe(calls + 1);
  network.cut();
  await turns(page).getByText("The service does not answer. Trying again …").waitFor();
  network.hold(false);
  network.mend();
  await turns(page).locator(".facts").waitFor();
  expect((await turns(page).locator(".reply .text").textContent())?.trim()).toBe(WHOLE);
  expect(app.simulated.callCount).toBe(calls + 1);
  expect([...keys]).toEqual([expect.stringMatching(/^[0-9a-f]{32}$/)]);
});

test("a connection that has gone silent is given up for a new one", async () => {
  const network = await startNetwork();
  const page = await browser.visit(network.url);
  await page.clock.install();
  await page.reload();
  await send(page, "a story");
  await untilPiece(turns(page), 3);
  network.hold(true);
  const said = await turns(page).locator(".reply").textContent();
  await page.clock.fastForward(20_000);
  expect(await turns(page).locator(".disconnected").count()).toBe(0);
  network.hold(false);
  network.hold(true);
  await page.clock.fastForward(41_000);
  await turns(page).getByText(LOST).waitFor();
  network.hold(false);
  await page.clock.fastForward(10_000);
  await turns(page).locator(".facts").waitFor();
  const whole = (await turns(page).locator(".reply").textContent()) ?? "";
  expect(whole.startsWith(said?.trim() ?? "-")).toBe(true);
  expect((await turns(page).locator(".reply .text").textContent())?.trim()).toBe(WHOLE);
});

test("attempts end after two minutes; the button follows the same turn again", async () => {
  const network = await startNetwork();
  const page = await browser.visit(network.url);
  await page.clock.install();
  await page.reload();
  const calls = app.simulated.callCount;
  await send(page, "a story");
  await untilPiece(turns(page), 3);
  network.cut();
  await turns(page).getByText(LOST).waitFor();
  for (let at = 0; at < 20; at++) {
    await page.clock.fastForward(11_000);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const alert = turns(page).getByRole("alert");
  await alert.getByText("The service cannot be reached.").waitFor();
  expect(await turns(page).locator(".reply").textContent()).toContain("piece 3");
  network.mend();
  await turns(page).getByRole("button", { name: "Try again" }).click();
  // What it took has stood there since the attempts ended.
  await untilPiece(turns(page), 99);
  await turns(page).locator(".facts").waitFor();
  expect((await turns(page).locator(".reply .text").textContent())?.trim()).toBe(WHOLE);
  expect(await alert.count()).toBe(0);
  expect(app.simulated.callCount).toBe(calls + 1);
});
