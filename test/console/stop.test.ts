import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { FinishReason, TurnState } from "../../gen/parley/chat/v1/turn_pb.js";
import { callerOf } from "../app/clients.ts";
import { eventually, useBrowser } from "../support/browser.ts";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { hasFocus, messageField, send, sendButton, sessionIdOf, stopButton, turns, untilPiece } from "./console.ts";

const browser = useBrowser();
let app: TestApp;
beforeAll(async () => {
  // Nobody waits for its end.
  app = await startTestApp({ model: "sim-9999x20", env: { DRAIN_MS: "0", MAX_TOKENS: "1000000" } });
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
  await eventually(() => hasFocus(messageField(page))).toBe(true);

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
  await untilPiece(turns(page), 3);
  await stopButton(page).click();
  await turns(page).locator(".end").waitFor();
  const call = app.simulated.calls.at(-1);
  await eventually(() => call?.state).toBe("closed_by_client");
  await page.reload();
  await untilPiece(turns(page).locator(".reply"), 3);

  await send(page, "go on");
  await untilPiece(turns(page).last().locator(".reply"), 3);
  expect(app.simulated.calls.at(-1)?.messages.map(({ content }) => content)).toContain("tell me everything");
  await stopButton(page).click();
  await turns(page).last().locator(".end").waitFor();
});

test("what was loaded again is stopped as well", async () => {
  const page = await browser.visit(app.url);
  await send(page, "tell me everything");
  await untilPiece(turns(page), 3);
  const call = app.simulated.calls.at(-1);
  await page.reload();
  await untilPiece(turns(page), 30);
  await stopButton(page).click();
  await turns(page).locator(".end").getByText("Stopped.").waitFor();
  await eventually(() => call?.state).toBe("closed_by_client");
  await sendButton(page).waitFor();
});

test("a stop is asked for again when its answer is lost", async () => {
  const page = await browser.visit(app.url);
  let asked = 0;
  await page.route("**/CancelTurn", (route) => (++asked < 3 ? route.abort() : route.continue()));
  await send(page, "tell me everything");
  await untilPiece(turns(page), 3);
  await stopButton(page).click();
  await page.getByText("Stopping …").waitFor();
  await turns(page).locator(".end").getByText("Stopped.").waitFor();
  expect(asked).toBe(3);
});

test("a message that is stopped before its turn has begun ends as soon as that begins", async () => {
  const page = await browser.visit(app.url);
  let letGo = (): void => undefined;
  const held = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  await page.route("**/StreamChat", async (route) => {
    await held;
    await route.continue();
  });
  await send(page, "tell me everything");
  await stopButton(page).click();
  await page.getByText("Stopping …").waitFor();
  letGo();
  await turns(page).locator(".end").getByText("Stopped.").waitFor();
  await eventually(() => app.simulated.calls.at(-1)?.state).toBe("closed_by_client");
});
