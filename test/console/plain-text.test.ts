import { expect, test } from "vitest";
import { callerOf } from "../app/clients.ts";
import { eventually, useBrowser } from "../support/browser.ts";
import { useTestApp } from "../support/use-app.ts";
import { conversation, say, sessionButtons, styleOf, turns } from "./console.ts";

const browser = useBrowser();
const app = useTestApp();

const MARKUP = [
  '<img src="x" onerror="document.title=1">',
  "<script>document.title = 2</script>",
  '<svg onload="document.title=3">',
  '<a href="javascript:document.title=4">go</a>',
  "[go](javascript:document.title=5) ![x](https://elsewhere.example/x.png)",
  "```html\n<iframe srcdoc='<script>parent.document.title=6</script>'></iframe>\n```",
  "</textarea></p></div><h1>broken out</h1>",
  "&lt;b&gt; &amp;amp; &#60;i&#62;",
];

test.each(MARKUP)("text is never markup: %s", async (markup) => {
  const page = await browser.visit(app.url);
  const turn = await say(page, markup);
  const elements = turn.locator("img, script, svg, a, iframe, h1, b, i");
  expect(await elements.count()).toBe(0);
  const shown = markup.replace(/^```html\n|\n```$/g, "");
  expect(await turn.locator(".question .text").textContent()).toBe(shown);
  expect(await turn.locator(".reply").textContent()).toContain(shown.split("\n")[0]);

  // Nor in the list, in the title, in the dialog, or after a reload.
  await sessionButtons(page).first().waitFor();
  await page.locator(".session-delete").first().click({ force: true });
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await page.reload();
  await turns(page).locator(".reply").waitFor();
  expect(await page.locator(".transcript").locator("img, script, svg, a, iframe, h1, b, i").count()).toBe(0);
  await eventually(() => page.title()).toMatch(/ · Parley$/);
});

test("a session's name, whoever gave it, is text", async () => {
  const { sessions } = callerOf(app);
  const title = "<img src=x onerror=alert(1)>";
  await sessions.createSession({ sessionId: "named", userId: "me", metadata: { title } });
  const page = await browser.visit(`${app.url}/#/sessions/named`);
  await eventually(() => page.getByRole("heading", { level: 1 }).textContent()).toBe(title);
  expect(await sessionButtons(page).locator(".session-name").allTextContents()).toContain(title);
  await sessions.deleteSession({ sessionId: "named" });
});

test("fenced code is set apart, and its spaces and lines are kept", async () => {
  const page = await browser.visit(app.url);
  const turn = await say(page, "look:\n```ts\nif (a) {\n    b();\n}\n```\nand that was it\n\n\nwith a gap");
  const question = turn.locator(".question");
  expect(await question.locator("pre code").textContent()).toBe("if (a) {\n    b();\n}");
  expect(await question.locator("p").allTextContents()).toEqual(["look:", "and that was it\n\n\nwith a gap"]);
  expect(await styleOf(question.locator("p").last(), "white-space")).toBe("pre-wrap");
});

const WIDE = [
  { what: "a long word", text: "Donaudampfschifffahrtsgesellschaft".repeat(40) },
  { what: "a long address", text: `https://parley.example/${"a/b-c?d=e&".repeat(60)}` },
  { what: "a long line of code", text: `\`\`\`\n${"const answer = 42; ".repeat(40)}\n\`\`\`` },
  { what: "many lines", text: Array.from({ length: 300 }, (_, at) => `line ${at}`).join("\n") },
  { what: "wide characters", text: "漢字かな交じり文".repeat(50) },
  { what: "a table", text: `| a | b |\n|---|---|\n${`| ${"wide ".repeat(30)} | x |\n`.repeat(5)}` },
  { what: "right to left", text: "مرحبا بالعالم ".repeat(40) },
];

test.each(WIDE)("$what does not break the layout", async ({ text }) => {
  const page = await browser.visit(app.url);
  await say(page, text);
  for (const width of [1200, 360]) {
    await page.setViewportSize({ width, height: 740 });
    const overflow = await page.evaluate<number>("document.documentElement.scrollWidth - window.innerWidth");
    expect(overflow).toBeLessThanOrEqual(0);
    expect(await conversation(page).evaluate((node) => node.scrollWidth - node.clientWidth)).toBeLessThanOrEqual(0);
    const box = await turns(page).locator(".question").boundingBox();
    expect((box?.x ?? -1) >= 0 && (box?.x ?? 0) + (box?.width ?? 0) <= width).toBe(true);
  }
});
