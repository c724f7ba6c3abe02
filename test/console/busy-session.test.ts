import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import type { Page } from "playwright-core";
import { expect, test } from "vitest";
import { ChatService, OnBusy } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { callerOf } from "../app/clients.ts";
import { eventually, useBrowser } from "../support/browser.ts";
import { singleTeams } from "../support/single-teams.ts";
import { useTestApp } from "../support/use-app.ts";
import { choose, hasFocus, messageField, send, sessionIdOf, stopButton, turns, untilPiece } from "./console.ts";

// Messages that are sent while the session answers another.

const YAML = JSON.stringify(singleTeams({ narrator: { model: "sim-9999x20" }, assistant: {} }));

const browser = useBrowser();
const app = useTestApp({ yaml: YAML, env: { DRAIN_MS: "0", MAX_TOKENS: "1000000" } });

/** A page whose session is telling a story that nobody waits for. */
async function pageAmidStory(): Promise<Page> {
  const page = await browser.visit(app.url);
  await send(page, "a story");
  await untilPiece(turns(page), 3);
  await choose(page, "assistant");
  return page;
}

test("a turn that waits for another says so, begins when that one ends, and can be stopped while it waits", async () => {
  const first = await browser.visit(app.url);
  await send(first, "a story");
  await untilPiece(turns(first), 3);

  const second = await browser.visit(first.url());
  await send(second, "another story");
  await turns(second).getByText("Waiting: 1 turn ahead").waitFor();
  await eventually(() => second.getByRole("status").textContent()).toBe("Waiting: 1 turn ahead");
  const third = await browser.visit(first.url());
  await send(third, "a third story");
  await turns(third).getByText("Waiting: 2 turns ahead").waitFor();
  await stopButton(third).click();
  await turns(third).locator(".end").getByText("Stopped.").waitFor();

  await stopButton(first).click();
  await untilPiece(turns(second).locator(".reply-open"), 3);
  await stopButton(second).click();
  await turns(second).locator(".end").getByText("Stopped.").waitFor();
});

test("Enter amid an answer sends a message that waits its turn", async () => {
  const page = await pageAmidStory();
  const calls = app.simulated.callCount;
  await messageField(page).fill("next question");
  await page.getByText("Enter queues, Ctrl+Enter interrupts, Esc stops").waitFor();
  await messageField(page).press("Enter");
  await turns(page).last().getByText("Waiting: 1 turn ahead").waitFor();
  await send(page, "and another");
  await turns(page).last().getByText("Waiting: 2 turns ahead").waitFor();
  expect(await messageField(page).inputValue()).toBe("");
  expect(await hasFocus(messageField(page))).toBe(true);
  expect(app.simulated.callCount).toBe(calls);

  await stopButton(page).click();
  await turns(page).nth(1).getByText("You said: “next question”.").waitFor();
  await turns(page).nth(2).getByText("You said: “and another”.").waitFor();
  expect(app.simulated.callCount).toBe(calls + 2);
  await eventually(() => stopButton(page).count()).toBe(0);
});

test("a message that waits is taken back, and is in the field again", async () => {
  const page = await pageAmidStory();
  await send(page, "not so fast");
  await turns(page).last().getByRole("button", { name: "Take back" }).press("Enter");
  await turns(page).last().locator(".end").getByText("Stopped.").waitFor();
  expect(await messageField(page).inputValue()).toBe("not so fast");
  await stopButton(page).click();
  await turns(page).first().locator(".end").waitFor();
  await messageField(page).press("Enter");
  await turns(page).getByText("You said: “not so fast”.").waitFor();
  expect(await turns(page).count()).toBe(2);
});

const waysToInterrupt = [
  { how: "the button", interrupt: (page: Page) => page.getByRole("button", { name: "Interrupt" }).click() },
  { how: "Ctrl+Enter", interrupt: (page: Page) => messageField(page).press("Control+Enter") },
];

test.each(waysToInterrupt)(
  "interrupted with $how, the answer ends in words, keeps what it said, and the message goes first",
  async ({ interrupt }) => {
    const page = await pageAmidStory();
    await send(page, "this waits");
    await turns(page).last().getByText("Waiting: 1 turn ahead").waitFor();
    await messageField(page).fill("this is urgent");
    await interrupt(page);
    await turns(page).first().locator(".end").getByText("A newer message ended this turn.").waitFor();
    await turns(page).getByText("You said: “this is urgent”.").waitFor();
    await turns(page).getByText("You said: “this waits”.").waitFor();
    const questions = ["a story", "this is urgent", "this waits"];
    expect(await turns(page).locator(".question").allTextContents()).toEqual(questions.map((text) => `You: ${text}`));
    expect(await turns(page).first().locator(".reply").textContent()).toContain("piece 3");
    expect(await page.getByRole("alert").count()).toBe(0);

    const history = (await callerOf(app).messages(sessionIdOf(page))).map(({ content }) => content);
    expect(history.filter((content) => questions.includes(content))).toEqual(questions);
    // The history says the same in the same order.
    await page.reload();
    await eventually(() => turns(page).locator(".question").allTextContents()).toEqual(
      questions.map((text) => `You: ${text}`),
    );
  },
);

test("a turn that somebody rolled back says so, and its message is given back", async () => {
  const page = await pageAmidStory();
  const chat = createClient(ChatService, createConnectTransport({ baseUrl: app.url, httpVersion: "1.1" }));
  const request = { sessionId: sessionIdOf(page), message: "instead", userId: "me", agentTeam: "assistant" };
  await chat.chat({ ...request, onBusy: OnBusy.ROLLBACK });
  await turns(page).locator(".end").getByText("A newer message took this turn's place.").waitFor();
  expect(await messageField(page).inputValue()).toBe("a story");
  expect(await page.getByRole("alert").count()).toBe(0);
});

test("with nothing written there is nothing to interrupt with", async () => {
  const page = await pageAmidStory();
  expect(await page.getByRole("button", { name: "Interrupt" }).count()).toBe(0);
  await messageField(page).fill("x");
  await page.getByRole("button", { name: "Interrupt" }).waitFor();
  await stopButton(page).click();
  await eventually(() => page.getByRole("button", { name: "Interrupt" }).count()).toBe(0);
});
