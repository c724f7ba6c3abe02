import { expect, test } from "vitest";
import { eventually, useBrowser } from "../support/browser.ts";
import { singleTeams } from "../support/single-teams.ts";
import { useTestApp } from "../support/use-app.ts";
import {
  choose,
  conversation,
  hasFocus,
  messageField,
  say,
  send,
  sendButton,
  sessionButtons,
  sessionIdOf,
  stopButton,
  turns,
  untilPiece,
} from "./console.ts";

const YAML = JSON.stringify(singleTeams({ assistant: {}, narrator: { model: "sim-9999x5" } }));

const browser = useBrowser();
const app = useTestApp({ yaml: YAML, env: { DRAIN_MS: "0", MAX_TOKENS: "1000000" } });

// One that takes long enough to be watched, and is stopped by its page's end.

test("the first visit says what to do, and the message field has the focus", async () => {
  const page = await browser.visit(app.url);
  await page.getByText("Say something.").waitFor();
  await page.getByText("No sessions yet.").waitFor();
  await eventually(() => hasFocus(messageField(page))).toBe(true);
  expect(await sendButton(page).isDisabled()).toBe(true);
  expect(await page.title()).toBe("New session · Parley");
});

test("the first message begins a session, and its answer is shown with tokens, cost and time", async () => {
  const page = await browser.visit(app.url);
  const turn = await say(page, "hello there");
  expect(await turn.locator(".question").textContent()).toContain("hello there");
  expect(await turn.locator(".reply").textContent()).toContain("You said: “hello there”.");
  expect(await turn.locator(".facts").textContent()).toMatch(
    /^\d+ tokens \(\d+ in, \d+ out\) · \$[\d.]+ · [\d.]+ m?s$/,
  );
  await eventually(() => sessionButtons(page).allInnerTexts()).toEqual([
    expect.stringMatching(/^hello there\s+2 messages · just now$/),
  ]);
  expect(sessionIdOf(page)).not.toBe("");
  expect(await messageField(page).inputValue()).toBe("");
  expect(await page.title()).toBe("hello there · Parley");
});

test("the tokens of a turn and of its session are the model's own count", async () => {
  const page = await browser.visit(app.url);
  const turn = await say(page, "count me once");
  const call = app.simulated.calls.findLast(({ messages }) => messages.at(-1)?.content === "count me once");
  const total = (call?.promptTokens ?? 0) + (call?.completionTokens ?? 0);
  expect(total).toBeGreaterThan(0);
  expect(await turn.locator(".facts").textContent()).toContain(
    `${total} tokens (${call?.promptTokens} in, ${call?.completionTokens} out)`,
  );
  await page.getByText(`This session so far: ${total} tokens`).waitFor();
});

test("an answer is shown while it is being written, and the page follows it", async () => {
  const page = await browser.visit(app.url);
  await choose(page, "narrator");
  await send(page, "a long story");
  const reply = turns(page).locator(".reply");
  await reply.getByText(/piece 3\b/).waitFor();
  // The end is far away: this is the stream.
  expect(await stopButton(page).isVisible()).toBe(true);
  expect(await reply.textContent()).not.toContain("piece 9998");
  expect(await turns(page).locator(".facts").count()).toBe(0);

  await reply.getByText(/piece 250\b/).waitFor();
  const place = await conversation(page).evaluate(({ scrollTop, scrollHeight, clientHeight }) => ({
    scrolled: scrollTop > 0,
    below: scrollHeight - scrollTop - clientHeight,
  }));
  expect(place.scrolled).toBe(true);
  expect(place.below).toBeLessThan(80);
});

test("who reads further up is left there while the answer goes on", async () => {
  const page = await browser.visit(app.url);
  await choose(page, "narrator");
  await send(page, "a long story");
  const reply = turns(page).locator(".reply");
  await reply.getByText(/piece 300\b/).waitFor();
  await conversation(page).evaluate((element) => element.scrollTo({ top: 0, behavior: "instant" }));
  await reply.getByText(/piece 400\b/).waitFor();
  expect(await conversation(page).evaluate(({ scrollTop }) => scrollTop)).toBe(0);
});

test("the caret is there while text comes, and gone with the answer's end", async () => {
  const page = await browser.visit(app.url);
  await choose(page, "narrator");
  await send(page, "a long story");
  await untilPiece(turns(page).locator(".reply-open"), 3);
  await stopButton(page).click();
  await turns(page).locator(".end").waitFor();
  expect(await turns(page).locator(".reply-open").count()).toBe(0);
});
