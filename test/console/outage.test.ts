import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { type SimulatedModel, startSimulatedModel } from "../../src/providers/simulated-model.ts";
import { eventually, useBrowser } from "../support/browser.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { type ServiceProcess, startServiceProcess } from "../support/service-process.ts";
import { messageField, send, sessionButtons, sessionIdOf, turns } from "./console.ts";

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

test("a service that dies amid an answer is told, and the session goes on when it is back", async () => {
  const service = await startService();
  const page = await browser.visit(service.url);
  await send(page, "a story");
  await turns(page)
    .getByText(/piece 3\b/)
    .waitFor();
  const sessionId = sessionIdOf(page);
  await service.kill();
  await eventually(() => turns(page).getByRole("alert").textContent()).toBe(UNREACHABLE);
  expect(await turns(page).locator(".reply").textContent()).toContain("piece 3");
  expect(await messageField(page).inputValue()).toBe("a story");

  await startService({ port: new URL(service.url).port });
  await messageField(page).press("Enter");
  await turns(page)
    .getByText(/piece 99\b/)
    .waitFor();
  expect(sessionIdOf(page)).toBe(sessionId);
  expect(await turns(page).count()).toBe(1);
  await eventually(() => page.getByRole("alert").count()).toBe(0);
});

test("a service that is not there is told at the message and at the list, and each can be tried again", async () => {
  const service = await startService();
  const page = await browser.visit(service.url);
  await send(page, "a story to keep");
  await turns(page).locator(".facts").waitFor();
  await service.kill();
  // Another session, which cannot be begun; and the one that was, which cannot be read.
  await page.getByRole("button", { name: "New session" }).click();
  await send(page, "are you there?");
  await turns(page).getByRole("alert").getByText(UNREACHABLE).waitFor();
  const list = page.getByRole("navigation", { name: "Your sessions" });
  await list.getByRole("alert").getByText(UNREACHABLE).waitFor();

  await startService({ port: new URL(service.url).port });
  await list.getByRole("button", { name: "Try again" }).click();
  await eventually(() => list.getByRole("alert").count()).toBe(0);
  expect(await sessionButtons(page).locator(".session-name").allTextContents()).toContain("a story to keep");
  await messageField(page).press("Enter");
  await turns(page)
    .getByText(/piece 99\b/)
    .waitFor();
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
  await turns(page)
    .getByText(/piece 99\b/)
    .waitFor();
  expect(await page.getByRole("alert").count()).toBe(0);
});

test("a service that is told to stop ends its answers in a sentence", async () => {
  const service = await startService();
  const page = await browser.visit(service.url);
  await send(page, "a story");
  await turns(page)
    .getByText(/piece 3\b/)
    .waitFor();
  service.send("SIGTERM");
  const alert = turns(page).getByRole("alert");
  await alert.waitFor();
  expect(await alert.textContent()).toMatch(/being replaced; another answers soon\. Try again in 1 s\. DRAINING$/);
  expect(await messageField(page).inputValue()).toBe("a story");
});
