import { expect, test } from "vitest";
import { eventually, useBrowser } from "../support/browser.ts";
import { useTestApp } from "../support/use-app.ts";
import { choose, conversation, say, send, stopButton, turns } from "./console.ts";

const YAML = `
agents:
  assistant: {}
  clock: { model: sim-tools, tools: [current_time] }
  writer: { model: sim-30x20 }
  critic: { model: sim-terminate }
  forgetful: { model: sim-tool-loop }
teams:
  assistant: { kind: single, agent: assistant }
  clock: { kind: single, agent: clock }
  review: { kind: round_robin, agents: [writer, critic] }
  forgetful: { kind: single, agent: forgetful, max_rounds: 2 }
`;

const browser = useBrowser();
const app = useTestApp({ yaml: YAML, env: { DRAIN_MS: "0" } });

test("a tool call is a line, and what it was given and said is folded away until it is asked for", async () => {
  const page = await browser.visit(app.url);
  await choose(page, "clock");
  const turn = await say(page, "what time is it?");
  const call = turn.getByRole("group");
  await call.getByText("Called current_time.").waitFor();
  const result = call.getByText(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  expect(await result.isVisible()).toBe(false);
  await call.getByText("Called current_time.").click();
  expect(await result.isVisible()).toBe(true);
  await turn.locator(".reply").getByText("A tool said:").waitFor();
  // It stands before the answer that was made of it.
  expect(await turn.evaluate((node) => [...node.children].map(({ className }) => className))).toEqual([
    "question",
    "tool",
    "reply",
    "facts",
  ]);
});

test("a tool call can be opened by keyboard", async () => {
  const page = await browser.visit(app.url);
  await choose(page, "clock");
  const turn = await say(page, "what time is it?");
  await turn.locator("summary").focus();
  await page.keyboard.press("Enter");
  await turn.getByText(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/).waitFor();
});

test("a tool call that failed says so", async () => {
  const page = await browser.visit(app.url);
  await choose(page, "forgetful");
  const turn = await say(page, "look it up");
  await turn.getByText("look_up failed.").first().waitFor();
  await turn.getByText("look_up failed.").first().click();
  await turn
    .getByText(/"query": "again"/)
    .first()
    .waitFor();
  await turn.getByText("The team reached its maximum of rounds.").waitFor();
});

test("of a team of several it is shown who speaks, from the first word on, and after a reload", async () => {
  const page = await browser.visit(app.url);
  await choose(page, "review");
  await send(page, "a haiku");
  await turns(page).locator(".reply-open .agent").getByText("writer").waitFor();
  await turns(page).locator(".facts").waitFor();
  const agents = () => turns(page).locator(".reply > .agent").allInnerTexts();
  await eventually(async () => (await agents()).map((name) => name.trim().replace(/\W+$/, ""))).toEqual([
    "writer",
    "critic",
  ]);
  await page.reload();
  await eventually(async () => (await agents()).map((name) => name.trim().replace(/\W+$/, ""))).toEqual([
    "writer",
    "critic",
  ]);
});

test("of a team of one nobody is named", async () => {
  const page = await browser.visit(app.url);
  const turn = await say(page, "hello");
  expect(await turn.locator(".agent").count()).toBe(0);
});

test("the teams are offered with their agents, and the chosen one answers", async () => {
  const page = await browser.visit(app.url);
  const field = page.getByRole("combobox", { name: "Team that answers" });
  await eventually(() => field.locator("option").allTextContents()).toEqual([
    "Default team",
    "assistant",
    "clock",
    "review: writer, critic",
    "forgetful",
  ]);
  await choose(page, "review");
  await send(page, "a haiku");
  await turns(page).locator(".facts").waitFor();
  expect(app.simulated.calls.slice(-2).map(({ model }) => model)).toEqual(["sim-30x20", "sim-terminate"]);
  expect(await stopButton(page).count()).toBe(0);
  expect(await conversation(page).getByRole("alert").count()).toBe(0);
});
