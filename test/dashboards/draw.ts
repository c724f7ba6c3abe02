import { mkdir, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { launchChromium } from "../support/chromium.ts";
import { dashboardPage } from "./dashboard-page.ts";
import { readDashboards, troublesOf } from "./monitored-demo.ts";

// make draw-dashboards: what Grafana would show of the demonstration of costs, where there is no Grafana to ask. Each panel's
// query is run on a real Prometheus and drawn, as a page and as a picture, in the folder that is named.
const [folder = ".cache/dashboards"] = process.argv.slice(2);
const seconds = Number(process.env.DEMO_SECONDS || 60);

process.stdout.write(`Prometheus looks on while three teams work for ${seconds} s …\n`);
const dashboards = await readDashboards({ seconds, withDayBefore: true });
await mkdir(folder, { recursive: true });
const browser = await launchChromium();
try {
  for (const read of dashboards) {
    const path = resolve(folder, read.dashboard.uid);
    await writeFile(`${path}.html`, dashboardPage(read.dashboard, read.panels));
    const page = await browser.newPage({ viewport: { width: 1_720, height: 900 } });
    await page.goto(pathToFileURL(`${path}.html`).href);
    await page.screenshot({ path: `${path}.png`, fullPage: true });
    process.stdout.write(`${join(folder, read.dashboard.uid)}.html and .png\n`);
  }
} finally {
  await browser.close();
}
const troubles = dashboards.flatMap(troublesOf);
for (const trouble of troubles) process.stderr.write(`${trouble}\n`);
process.exit(troubles.length === 0 ? 0 : 1);
