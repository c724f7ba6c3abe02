import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { type SimulatedModel, startSimulatedModel } from "../../src/providers/simulated-model.ts";
import { eventually, useBrowser } from "../support/browser.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { type ServiceProcess, startServiceProcess } from "../support/service-process.ts";
import { messageField, send, sessionButtons, turns, untilPiece } from "./console.ts";

// The service goes away and comes back; the page is not loaded again.

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

async function startService({ port = "0" }: { port?: string } = {}): Promise<ServiceProcess> {
  const service = await startServiceProcess({
    env: {
      PORT: port,
      REDIS_URL: redis.url,
      OPENAI_BASE_URL: model.baseUrl,
      MODEL: "sim-100x20",
      LEASE_MS: "1000",
      DRAIN_MS: "0",
    },
  });
  onTestFinished(() => service.stop());
  return service;
}

const UNREACHABLE = "The service cannot be reached. Check that it is running, then try again.";

const WHOLE = Array.from({ length: 100 }, (_, index) => `piece ${index}`).join(" ");
const LOST = "The connection was lost. The answer goes on here as soon as it is back.";

test("a service that dies amid an answer is waited for, and the answer goes on by itself, whole", async () => {
  const service = await startService();
  const page = await browser.visit(service.url);
  await send(page, "a story");
  await untilPiece(turns(page), 3);
  await service.kill();
  await turns(page).getByText(LOST).waitFor();
  await eventually(() => page.getByRole("status").textContent()).toBe(LOST);
  expect(await turns(page).locator(".reply").textContent()).toContain("piece 3");
  expect(await turns(page).locator(".reply-open").count()).toBe(0);
  expect(await page.getByRole("alert").count()).toBe(0);

  await startService({ port: new URL(service.url).port });
  await turns(page).locator(".facts").waitFor();
  expect((await turns(page).locator(".reply .text").textContent())?.trim()).toBe(WHOLE);
  expect(await turns(page).locator(".disconnected").count()).toBe(0);
  expect(await turns(page).count()).toBe(1);
  expect(await messageField(page).inputValue()).toBe("");
  await eventually(() => page.getByRole("alert").count()).toBe(0);
});

test("a message that is sent while the service is not there is sent when it is back", async () => {
  const service = await startService();
  const page = await browser.visit(service.url);
  await send(page, "a story to keep");
  await turns(page).locator(".facts").waitFor();
  await service.kill();
  // In another session, which cannot be begun.
  await page.getByRole("button", { name: "New session" }).click();
  await send(page, "are you there?");
  await turns(page).getByText("The service does not answer. Trying again …").waitFor();
  expect(await messageField(page).inputValue()).toBe("");

  await startService({ port: new URL(service.url).port });
  await untilPiece(turns(page), 99);
  expect(await turns(page).count()).toBe(1);
  // The list came back by itself, too.
  const names = sessionButtons(page).locator(".session-name");
  await eventually(async () => (await names.allTextContents()).slice(0, 2)).toEqual([
    "are you there?",
    "a story to keep",
  ]);
});

test("a list that could not be read is read on request", async () => {
  const service = await startService();
  const page = await browser.visit(service.url);
  let broken = true;
  await page.route("**/ListSessions*", (route) => (broken ? route.abort() : route.continue()));
  await page.reload();
  const list = page.getByRole("navigation", { name: "Your sessions" });
  await list.getByRole("alert").getByText(UNREACHABLE).waitFor();
  broken = false;
  await list.getByRole("button", { name: "Try again" }).click();
  await eventually(() => list.getByRole("alert").count()).toBe(0);
});

test("a history that could not be read is read on request", async () => {
  const service = await startService();
  const page = await browser.visit(service.url);
  await send(page, "a story to read");
  await turns(page).locator(".facts").waitFor();
  let broken = true;
  await page.route("**/ListMessages*", (route) => (broken ? route.abort() : route.continue()));
  await page.reload();
  const conversation = page.getByRole("region", { name: "Conversation" });
  await conversation.getByRole("alert").getByText(UNREACHABLE).waitFor();
  broken = false;
  await conversation.getByRole("button", { name: "Try again" }).click();
  await untilPiece(turns(page), 99);
  expect(await page.getByRole("alert").count()).toBe(0);
});

test("a service that is told to stop amid an answer hands it over: the next one on its place goes on with it", async () => {
  const service = await startService();
  const page = await browser.visit(service.url);
  await send(page, "a story");
  await untilPiece(turns(page), 3);
  await service.stop();
  await startService({ port: new URL(service.url).port });
  await turns(page).locator(".facts").waitFor();
  expect((await turns(page).locator(".reply .text").textContent())?.trim()).toBe(WHOLE);
  expect(await page.getByRole("alert").count()).toBe(0);
});
