import { chromium } from "playwright-core";
import { createServer } from "vite";

// The page in a Chromium without a window, for a terminal: prints what the page shows as lines of JSON, by each protocol.

const { CHROMIUM = "/usr/bin/chromium", PARLEY_URL = "http://localhost:8080" } = process.env;

const server = await createServer();
const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
try {
  await server.listen();
  for (const protocol of ["connect", "grpc-web"]) {
    const page = await browser.newPage();
    await page.goto(`${server.resolvedUrls?.local[0]}?${new URLSearchParams({ parley: PARLEY_URL, protocol })}`);
    const status = await page
      .getByRole("status")
      .filter({ hasText: /^(Done|Failed)/ })
      .textContent({ timeout: 60_000 });
    const client = await page.locator("#client").textContent();
    for (const item of await page.getByRole("listitem").all()) {
      const step = await item.getByRole("heading").textContent();
      const saw = JSON.parse((await item.locator("pre").textContent()) ?? "");
      console.log(JSON.stringify({ client, step, saw }));
    }
    if (status !== "Done.") throw new Error(status ?? "");
  }
} finally {
  await browser.close();
  await server.close();
}
