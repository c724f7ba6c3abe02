import { afterAll, beforeAll, expect, test } from "vitest";
import { makeApiKey } from "../../src/identity/api-keys.ts";
import { useBrowser } from "../support/browser.ts";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { useTestApp } from "../support/use-app.ts";
import { settle } from "./spent.ts";

// Whose costs the page shows, and to whom. Credentials come from what stands before the service, as a gateway sets them.

const browser = useBrowser();
let redis: RedisServer;
let app: TestApp;
beforeAll(async () => {
  redis = await startRedisServer();
  app = await startTestApp({ redisUrl: redis.url, env: { AUTH_MODE: "api_key" }, withUsage: true });
});
afterAll(async () => {
  await app?.close();
  await redis?.stop();
});
const without = useTestApp();

async function visitAs(roles: string[], { tenant = "acme" } = {}) {
  const claims = { tenant, team: "", userId: "ann", useCases: [], roles, note: "" };
  const { key } = await makeApiKey(app.stores.apiKeys, claims);
  return browser.visit(`${app.url}/#/costs`, { extraHTTPHeaders: { authorization: `Bearer ${key}` } });
}

test("who has not the role usage:read reads a sentence, and no figures", async () => {
  const page = await visitAs(["chat"]);
  await page.getByText("You may not see what was spent. Ask for the role usage:read.").waitFor();
  expect(await page.locator(".costs-sum").count()).toBe(0);
  expect(await page.getByRole("table").count()).toBe(0);
});

test.each([[["chat", "usage:read"]], [["chat", "admin"]]])(
  "%s sees the own tenant's costs and no other's",
  async (roles) => {
    await settle(app.stores.accounts, { tenant: "acme", recordId: "mine", team: "red", costMicroUsd: 1_234_567n });
    await settle(app.stores.accounts, { tenant: "other", recordId: "theirs", team: "blue", costMicroUsd: 9n });
    const page = await visitAs(roles);
    await page.getByText("$1.234567").first().waitFor();
    expect(await page.getByRole("link", { name: "blue" }).count()).toBe(0);
  },
);

test("without credentials the page says what is missing", async () => {
  const page = await browser.visit(`${app.url}/#/costs`);
  await page.getByRole("main").getByRole("alert").waitFor();
  expect(await page.getByRole("main").getByRole("alert").textContent()).toContain("CREDENTIALS_MISSING");
});

test("where nothing leads to the sidecar the page says so", async () => {
  const page = await browser.visit(`${without.url}/#/costs`);
  await page.getByText("What was spent is not told at this address.").waitFor();
});
