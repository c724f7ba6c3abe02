import { chromium } from "playwright-core";
import { createServer } from "vite";

// The page in a Chromium without a window, for a terminal: prints what the page shows, once for each protocol.

const { CHROMIUM = "/usr/bin/chromium", PARLEY_URL = "http://localhost:8080" } = process.env;

const server = await createServer();
const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
try {
  await server.listen();
  for (const protocol of ["connect", "grpc-web"]) {
    const page = await browser.newPage();
    await page.goto(`${server.resolvedUrls?.local[0]}?${new URLSearchParams({ parley: PARLEY_URL, protocol })}`);
    const shown = page.locator("pre", { hasText: /^(done|failed: .*)$/m });
    const lines = ((await shown.textContent({ timeout: 60_000 })) ?? "").trim().split("\n");
    for (const line of lines.slice(0, -1)) console.log(line);
    if (lines.at(-1) !== "done") throw new Error(lines.at(-1));
  }
} finally {
  await browser.close();
  await server.close();
}
