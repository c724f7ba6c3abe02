import { expect, test } from "vitest";
import { callerOf } from "../app/clients.ts";
import { eventually, useBrowser } from "../support/browser.ts";
import { useTestApp } from "../support/use-app.ts";
import { conversation, say, sessionIdOf, turns } from "./console.ts";

const browser = useBrowser();
const app = useTestApp();

test("the history is shown again after a reload, and the session goes on", async () => {
  const page = await browser.visit(app.url);
  await say(page, "my name is Ada");
  await say(page, "what is my name?");
  const before = await turns(page).locator(".question, .reply").allInnerTexts();
  const sessionId = sessionIdOf(page);

  await page.reload();
  await eventually(() => turns(page).locator(".question, .reply").allInnerTexts()).toEqual(before);
  expect(sessionIdOf(page)).toBe(sessionId);
  expect(await page.getByRole("heading", { level: 1 }).textContent()).toBe("my name is Ada");

  const turn = await say(page, "and now?");
  expect(await turn.locator(".reply").textContent()).toContain("Before that you said: “my name is Ada”");
  expect(await turns(page).count()).toBe(3);
});

test("a session's address opens it in another window, and its text is not sent to the model again", async () => {
  const page = await browser.visit(app.url);
  await say(page, "look at this");
  const calls = app.simulated.callCount;
  const other = await browser.visit(page.url());
  await turns(other).getByText("You said: “look at this”.").waitFor();
  expect(app.simulated.callCount).toBe(calls);
});

test("a long history opens at its end, and its older part on request, without a jump", async () => {
  const caller = callerOf(app);
  const sessionId = await caller.createSession();
  // 250 messages: the console reads pages of 100 and keeps the last two.
  for (let at = 1; at <= 125; at++) await caller.say(sessionId, `question ${at}.`);

  const page = await browser.visit(`${app.url}/#/sessions/${sessionId}`);
  await turns(page).last().getByText("question 125.", { exact: true }).waitFor();
  const [first = ""] = await turns(page).locator(".question").allInnerTexts();
  expect(first).toContain("question 51.");
  const below = () =>
    conversation(page).evaluate(({ scrollTop, scrollHeight, clientHeight }) => scrollHeight - scrollTop - clientHeight);
  expect(await below()).toBeLessThan(80);

  const older = page.getByRole("button", { name: "Older messages" });
  await older.scrollIntoViewIfNeeded();
  const belowBefore = await below();
  await older.click();
  await turns(page).first().getByText("question 1.", { exact: true }).waitFor();
  expect(await turns(page).count()).toBe(125);
  expect(await older.count()).toBe(0);
  // What was in sight stays where it was: as much is below it as before.
  expect(Math.abs((await below()) - belowBefore)).toBeLessThan(80);
});
