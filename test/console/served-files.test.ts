import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Response as PageResponse } from "playwright-core";
import { expect, onTestFinished, test } from "vitest";
import { createConsoleFiles } from "../../src/rpc/console-files.ts";
import { createDocsFiles } from "../../src/rpc/docs-files.ts";
import type { PageHandler } from "../../src/rpc/static-files.ts";
import { useBrowser } from "../support/browser.ts";
import { useTestApp } from "../support/use-app.ts";
import { say } from "./console.ts";

const browser = useBrowser();
const app = useTestApp();

const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

test("all that the page is made of comes from the service, under its policy", async () => {
  const page = await browser.visit(app.url);
  const responses: PageResponse[] = [];
  page.on("response", (response) => responses.push(response));
  await page.reload();
  await say(page, "hello");
  const files = responses.filter((response) => !new URL(response.url()).pathname.startsWith("/parley."));
  expect(new Set(files.map((file) => new URL(file.url()).pathname.replace(/-[\w-]{8}\./, "-*.")))).toEqual(
    new Set(["/", "/assets/index-*.css", "/assets/index-*.js", "/console-config.json", "/favicon.svg"]),
  );
  for (const file of files) {
    expect(new URL(file.url()).origin).toBe(app.url);
    const headers = await file.allHeaders();
    expect(headers["content-security-policy"]).toBe(POLICY);
    expect(headers["x-content-type-options"]).toBe("nosniff");
    expect(headers["referrer-policy"]).toBe("no-referrer");
  }
});

test("the policy is in force: nothing inline runs, and nothing is fetched from elsewhere", async () => {
  const page = await browser.visit(app.url, { watched: false });
  const violations = await page.evaluate<string[]>(`new Promise((resolve) => {
    const blocked = [];
    document.addEventListener("securitypolicyviolation", ({ effectiveDirective }) => {
      blocked.push(effectiveDirective);
      if (blocked.length === 2) resolve(blocked);
    });
    const script = document.createElement("script");
    script.textContent = "document.title = 'run'";
    document.body.append(script);
    fetch("http://127.0.0.1:9/").catch(() => undefined);
  })`);
  expect(violations.sort()).toEqual(["connect-src", "script-src-elem"]);
  expect(await page.title()).not.toBe("run");
});

test("no other page can put the console into a frame", async () => {
  const page = await browser.visit(`${app.opsUrl}/livez`, { watched: false });
  await page.setContent(`<iframe src="${app.url}"></iframe>`);
  const frame = page.frames().at(-1);
  await frame?.waitForLoadState();
  expect(await frame?.locator("#console").count()).toBe(0);
});

test("files with a hash in their name are kept for ever, the page is asked for each time", async () => {
  const page = await fetch(app.url);
  const text = await page.text();
  expect(page.headers.get("cache-control")).toBe("no-cache");
  const again = await fetch(app.url, { headers: { "if-none-match": page.headers.get("etag") ?? "" } });
  expect(again.status).toBe(304);
  expect(await again.text()).toBe("");
  const [, script = ""] = /src="(\/assets\/[^"]+\.js)"/.exec(text) ?? [];
  const asset = await fetch(`${app.url}${script}`);
  expect(asset.status).toBe(200);
  expect(asset.headers.get("cache-control")).toBe("public, max-age=31536000, immutable");
});

test.each(["/../package.json", "/%2e%2e/package.json", "/..%2fpackage.json", "/assets/", "/assets", "/nothing", "//"])(
  "%s is no file of the console",
  async (path) => {
    // By hand: fetch would tidy the path.
    const status = await new Promise<number>((resolve, reject) => {
      request(app.url, { path }, (response) => resolve(response.resume().statusCode ?? 0))
        .on("error", reject)
        .end();
    });
    expect(status).toBe(404);
  },
);

test("the page is read, not written to", async () => {
  const head = await fetch(app.url, { method: "HEAD" });
  expect(head.status).toBe(200);
  expect(await head.text()).toBe("");
  const post = await fetch(app.url, { method: "POST" });
  expect(post.status).toBe(405);
  expect(post.headers.get("allow")).toBe("GET, HEAD");
});

test("a folder that is asked for without its slash is found at its page", async () => {
  const directory = await temporaryFolder();
  await mkdir(join(directory, "guide"));
  await writeFile(join(directory, "index.html"), "<!doctype html>all");
  await writeFile(join(directory, "guide", "index.html"), "<!doctype html>guide");
  const url = await serve(createDocsFiles({ directory }));
  for (const [path, folder] of [
    ["/docs", "/docs/"],
    ["/docs/guide", "/docs/guide/"],
    ["/docs/guide?from=here", "/docs/guide/"],
  ]) {
    const { status, headers } = await fetch(url + path, { redirect: "manual" });
    expect([path, status, headers.get("location")]).toEqual([path, 301, folder]);
  }
  expect(await (await fetch(`${url}/docs/guide`)).text()).toBe("<!doctype html>guide");
});

test("without a build the page says how to make one, and shows it once it is there", async () => {
  const directory = await temporaryFolder();
  const config = { version: "1", track: "stable", simulatedModel: false, model: "m", teams: ["t"] };
  const url = await serve(createConsoleFiles({ directory: join(directory, "dist"), config: () => config }));

  const missing = await fetch(url);
  expect(missing.status).toBe(503);
  expect(await missing.text()).toContain("npm run build:console");
  await mkdir(join(directory, "dist"));
  await writeFile(join(directory, "dist", "index.html"), "<!doctype html>built");
  expect(await (await fetch(url)).text()).toBe("<!doctype html>built");
  // What was read stays: a page never gets the files of two builds.
  await writeFile(join(directory, "dist", "index.html"), "<!doctype html>built again");
  expect(await (await fetch(url)).text()).toBe("<!doctype html>built");
});

async function temporaryFolder(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "parley-console-"));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

/** Its URL, without a slash at the end. */
async function serve(files: PageHandler): Promise<string> {
  const server = createServer((request, response) => void files(request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
