import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { FinishReason, TurnState } from "../../gen/parley/chat/v1/turn_pb.js";
import { callerOf } from "../app/clients.ts";
import { eventually, useBrowser } from "../support/browser.ts";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { hasFocus, messageField, send, sendButton, sessionIdOf, stopButton, turns } from "./console.ts";

const browser = useBrowser();
let app: TestApp;
beforeAll(async () => {
  // Nobody waits for its end.
  app = await startTestApp({ model: "sim-9999x20" });
});
afterAll(() => app.close());

const waysToStop = [
  { how: "the button", stop: (page: Page) => stopButton(page).click() },
  { how: "Escape", stop: (page: Page) => page.keyboard.press("Escape") },
  { how: "Enter on the button", stop: (page: Page) => stopButton(page).press("Enter") },
];

test.each(waysToStop)("stopped with $how, the turn ends and what was said stays", async ({ stop }) => {
  const page = await browser.visit(app.url);
  await send(page, "tell me everything");
  const turn = turns(page).last();
  await turn.getByText(/piece 3\b/).waitFor();
  const call = app.simulated.calls.at(-1);
  expect(call?.state).toBe("open");

  await stop(page);
  await turn.locator(".end").getByText("Stopped.").waitFor();
  await eventually(() => call?.state).toBe("closed_by_client");
  expect(await turn.locator(".reply").textContent()).toContain("piece 3");
  expect(await turn.getByRole("alert").count()).toBe(0);
  await sendButton(page).waitFor();
  expect(await hasFocus(messageField(page))).toBe(true);

  // The service agrees: the turn is cancelled, and the history has what was said.
  const caller = callerOf(app);
  const messages = await caller.messages(sessionIdOf(page));
  expect(messages.map(({ content }) => content)).toEqual(["tell me everything", expect.stringContaining("piece 3")]);
  const chat = createClient(ChatService, createConnectTransport({ baseUrl: app.url, httpVersion: "1.1" }));
  const { turn: ended } = await chat.getTurn({ turnId: messages[0]?.turnId ?? "" });
  expect(ended?.state).toBe(TurnState.FINISHED);
  expect(ended?.finishReason).toBe(FinishReason.CANCELLED);
  // And the page says what it took.
  await turn.getByText(`${ended?.tokenUsage?.totalTokens.toLocaleString("en")} tokens`).waitFor();
});

test("after a stop and a reload the partial text is there, and the session goes on", async () => {
  const page = await browser.visit(app.url);
  await send(page, "tell me everything");
  await turns(page)
    .getByText(/piece 3\b/)
    .waitFor();
  await stopButton(page).click();
  await turns(page).locator(".end").waitFor();
  const call = app.simulated.calls.at(-1);
  await eventually(() => call?.state).toBe("closed_by_client");
  await page.reload();
  await turns(page)
    .locator(".reply")
    .getByText(/piece 3\b/)
    .waitFor();

  await send(page, "go on");
  await turns(page)
    .last()
    .locator(".reply")
    .getByText(/piece 3\b/)
    .waitFor();
  expect(app.simulated.calls.at(-1)?.messages.map(({ content }) => content)).toContain("tell me everything");
  await stopButton(page).click();
  await turns(page).last().locator(".end").waitFor();
});

test("a page that is closed ends its turn", async () => {
  const page = await browser.visit(app.url);
  await send(page, "tell me everything");
  await turns(page)
    .getByText(/piece 3\b/)
    .waitFor();
  const call = app.simulated.calls.at(-1);
  await page.close();
  await eventually(() => call?.state).toBe("closed_by_client");
});

test("a message can be written while an answer comes, and is not sent by Enter until the answer has ended", async () => {
  const page = await browser.visit(app.url);
  await send(page, "tell me everything");
  await turns(page)
    .getByText(/piece 3\b/)
    .waitFor();
  const calls = app.simulated.callCount;
  await send(page, "next question");
  expect(await messageField(page).inputValue()).toBe("next question");
  await page.keyboard.press("Escape");
  await turns(page).locator(".end").waitFor();
  expect(await messageField(page).inputValue()).toBe("next question");
  expect(app.simulated.callCount).toBe(calls);
  expect(await turns(page).count()).toBe(1);
});
