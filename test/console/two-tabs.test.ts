import type { Page } from "playwright-core";
import { expect, test } from "vitest";
import { eventually, useBrowser } from "../support/browser.ts";
import { singleTeams } from "../support/single-teams.ts";
import { useTestApp } from "../support/use-app.ts";
import {
  choose,
  messageField,
  say,
  send,
  sessionButtons,
  sessionIdOf,
  stopButton,
  turns,
  untilPiece,
} from "./console.ts";

// Two tabs of one browser on one session.

const YAML = JSON.stringify(
  singleTeams({
    assistant: {},
    narrator: { model: "sim-9999x20" },
    brief: { model: "sim-100x20" },
    broken: { model: "sim-500" },
  }),
);

const browser = useBrowser();
const app = useTestApp({ yaml: YAML, env: { DRAIN_MS: "0", MAX_TOKENS: "1000000" } });

async function twoTabs(): Promise<{ first: Page; second: Page }> {
  const first = await browser.visit(app.url);
  await say(first, "hello");
  const second = await browser.open(first, first.url());
  await turns(second).getByText("You said: “hello”.").waitFor();
  return { first, second };
}

test("a turn that is begun in one tab streams in the other, and is the same in both", async () => {
  const { first, second } = await twoTabs();
  await choose(first, "brief");
  const calls = app.simulated.callCount;
  await send(first, "a short story");
  await turns(second).last().locator(".question").getByText("a short story").waitFor();
  await untilPiece(turns(second).last().locator(".reply-open"), 3);
  expect(await stopButton(second).isVisible()).toBe(true);

  const texts = (page: Page) => turns(page).locator(".question, .reply").allTextContents();
  await turns(first).last().locator(".facts").waitFor();
  await turns(second).last().locator(".facts").waitFor();
  expect(await texts(second)).toEqual(await texts(first));
  expect(await turns(second).count()).toBe(2);
  expect(app.simulated.callCount).toBe(calls + 1);
});

test("a tab stops what the other began, and sends into the same queue", async () => {
  const { first, second } = await twoTabs();
  await choose(first, "narrator");
  await send(first, "tell me everything");
  await untilPiece(turns(second).last(), 3);
  await send(second, "and then?");
  await turns(second).last().getByText("Waiting: 1 turn ahead").waitFor();
  await turns(first).last().getByText("Waiting: 1 turn ahead").waitFor();
  await stopButton(second).click();
  for (const page of [first, second]) {
    await turns(page).locator(".end").getByText("Stopped.").waitFor();
    await turns(page).last().getByText("You said: “and then?”.").waitFor();
    expect(await turns(page).locator(".question").allTextContents()).toEqual([
      "You: hello",
      "You: tell me everything",
      "You: and then?",
    ]);
  }
});

test("a message that waits is taken back in the other tab", async () => {
  const { first, second } = await twoTabs();
  await choose(first, "narrator");
  await send(first, "tell me everything");
  await untilPiece(turns(first).last(), 3);
  await send(first, "on second thoughts");
  await turns(second).last().getByText("Waiting: 1 turn ahead").waitFor();
  const calls = app.simulated.callCount;
  // By the keyboard: text that comes in above moves the button, and a slow click ends beside where it began.
  await turns(second).last().getByRole("button", { name: "Take back" }).press("Enter");
  await eventually(() => turns(first).locator(".question").allTextContents()).toEqual([
    "You: hello",
    "You: tell me everything",
  ]);
  expect(await messageField(second).inputValue()).toBe("on second thoughts");
  await stopButton(first).click();
  await turns(first).locator(".end").waitFor();
  await choose(first, "assistant");
  await say(first, "something else");
  expect(app.simulated.callCount).toBe(calls + 1);
});

test("a tab that is closed leaves its waiting message to the other", async () => {
  const { first, second } = await twoTabs();
  await choose(first, "narrator");
  await send(first, "tell me everything");
  await untilPiece(turns(first).last(), 3);
  await choose(first, "assistant");
  await send(first, "and then?");
  await turns(second).last().getByText("Waiting: 1 turn ahead").waitFor();
  await first.close();
  await stopButton(second).click();
  await turns(second).last().getByText("You said: “and then?”.").waitFor();
  expect(await turns(second).count()).toBe(3);
});

test("a message that is refused in one tab is not sent by the other", async () => {
  const { first, second } = await twoTabs();
  await choose(first, "broken");
  await send(first, "this fails");
  await turns(first).getByRole("alert").getByText("The model did not answer, or broke off.").waitFor();
  await eventually(() => messageField(first).inputValue()).toBe("this fails");
  expect(await messageField(second).inputValue()).toBe("");
  await choose(first, "assistant");
  await messageField(first).press("Enter");
  await turns(second).last().getByText("You said: “this fails”.").waitFor();
});

test("a session that is begun or deleted in one tab comes and goes in the other", async () => {
  const { first, second } = await twoTabs();
  await first.getByRole("button", { name: "New session" }).click();
  await say(first, "a second session");
  await sessionButtons(second).getByText("a second session").click();
  await turns(second).getByText("You said: “a second session”.").waitFor();
  expect(sessionIdOf(second)).toBe(sessionIdOf(first));

  await first.getByRole("button", { name: "Delete a second session" }).click();
  await first.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await second.getByText("Say something.").waitFor();
  expect(sessionIdOf(second)).toBe("");
  await eventually(() => sessionButtons(second).getByText("a second session").count()).toBe(0);
});

test("tabs of different users keep apart", async () => {
  const { first, second } = await twoTabs();
  const field = second.getByRole("textbox", { name: "You are" });
  await field.fill("somebody else");
  await field.press("Enter");
  await second.getByText("No sessions yet.").waitFor();
  await say(first, "only mine");
  expect(await sessionButtons(second).count()).toBe(0);
  expect(await turns(second).count()).toBe(0);
});
