import type { Page } from "playwright-core";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { type SimulatedModel, startSimulatedModel } from "../../src/providers/simulated-model.ts";
import { useBrowser } from "../support/browser.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { type ServiceProcess, startServiceProcess } from "../support/service-process.ts";
import { messageField, send, stopButton, turns, untilPiece } from "./console.ts";
import { type OneOrigin, startOneOrigin } from "./one-origin.ts";

// Two replicas on one Redis, behind one origin.

const browser = useBrowser();
let redis: RedisServer;
let model: SimulatedModel;
beforeAll(async () => {
  [redis, model] = await Promise.all([startRedisServer(), startSimulatedModel()]);
});
afterAll(async () => {
  await redis.stop();
  await model.close();
});

const WHOLE = Array.from({ length: 100 }, (_, index) => `piece ${index}`).join(" ");

async function startReplicas(): Promise<{ origin: OneOrigin; first: ServiceProcess; second: ServiceProcess }> {
  const env = {
    REDIS_URL: redis.url,
    OPENAI_BASE_URL: model.baseUrl,
    MODEL: "sim-100x30",
    LEASE_MS: "1000",
    DRAIN_MS: "0",
  };
  const [first, second] = await Promise.all([startServiceProcess({ env }), startServiceProcess({ env })]);
  const origin = await startOneOrigin(first.url);
  onTestFinished(async () => {
    await origin.close();
    await Promise.all([first.stop(), second.stop()]);
  });
  return { origin, first, second };
}

/** A page amid the first replica's answer; what it asks from now on leads to the second. */
async function amidStory(): Promise<{ page: Page; first: ServiceProcess }> {
  const { origin, first, second } = await startReplicas();
  const page = await browser.visit(origin.url);
  await send(page, "a story");
  await untilPiece(turns(page), 9);
  origin.leadTo(second.url);
  return { page, first };
}

test("a replica that is killed amid an answer: another goes on with it, and the page shows every word once", async () => {
  const { page, first } = await amidStory();
  await first.kill();
  await turns(page).locator(".facts").waitFor();
  // The cut step ran again, and its text took the place of what had been said.
  expect((await turns(page).locator(".reply .text").textContent())?.trim()).toBe(WHOLE);
  expect(await turns(page).locator(".reply").count()).toBe(1);
  expect(await page.getByRole("alert").count()).toBe(0);
  expect(await messageField(page).inputValue()).toBe("");
});

test("a replica that leaves says where to read on: no word is lost, and the turn is not begun anew", async () => {
  const { page, first } = await amidStory();
  await first.stop();
  await turns(page).locator(".facts").waitFor();
  expect((await turns(page).locator(".reply .text").textContent())?.trim()).toBe(WHOLE);
  expect(await turns(page).locator(".reply").count()).toBe(1);
  expect(await page.getByRole("alert").count()).toBe(0);
});

test("what one replica runs is stopped by way of another", async () => {
  const { page } = await amidStory();
  await page.reload();
  await untilPiece(turns(page), 9);
  await stopButton(page).click();
  await turns(page).locator(".end").getByText("Stopped.").waitFor();
  expect(await turns(page).locator(".reply").textContent()).not.toContain("piece 99");
});
