import { expect, test } from "vitest";
import { callerOf } from "../app/clients.ts";
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

// The page is loaded again, or closed and opened, while an answer comes.

const YAML = JSON.stringify(
  singleTeams({
    assistant: {},
    narrator: { model: "sim-9999x20" },
    brief: { model: "sim-100x20" },
    torrent: { model: "sim-4000x1" },
  }),
);

const browser = useBrowser();
const app = useTestApp({ yaml: YAML, env: { DRAIN_MS: "0", MAX_TOKENS: "1000000" } });

const WHOLE = Array.from({ length: 100 }, (_, index) => `piece ${index}`).join(" ");

test("a page that is loaded again amid an answer goes on where it was, to the end, with one model call", async () => {
  const page = await browser.visit(app.url);
  await choose(page, "brief");
  const calls = app.simulated.callCount;
  await send(page, "a short story");
  await untilPiece(turns(page), 9);
  await page.reload();
  // It is amid the answer: what was said is there again, and the end is not.
  await turns(page)
    .locator(".reply-open")
    .getByText(/^piece 0 .*piece 9\b/)
    .waitFor();
  expect(await turns(page).locator(".question").textContent()).toBe("You: a short story");
  expect(await stopButton(page).isVisible()).toBe(true);
  await turns(page).locator(".facts").waitFor();
  expect(await turns(page).count()).toBe(1);
  expect((await turns(page).locator(".reply .text").textContent())?.trim()).toBe(WHOLE);
  expect(app.simulated.callCount).toBe(calls + 1);
});

test("after a reload once it has ended, the turn comes from the history, once", async () => {
  const page = await browser.visit(app.url);
  await choose(page, "brief");
  await send(page, "a short story");
  await untilPiece(turns(page), 3);
  await page.goto("about:blank");
  await eventually(() => app.simulated.calls.at(-1)?.state).toBe("answered");
  await page.goBack();
  await untilPiece(turns(page), 99);
  await eventually(() => stopButton(page).count()).toBe(0);
  expect(await turns(page).count()).toBe(1);
  // Nothing is remembered of what has ended.
  await eventually(() => page.evaluate<string[]>("Object.keys(localStorage)")).toEqual([]);
});

test("a page that is closed loses nothing: its turn goes on, and is there when the console is opened again", async () => {
  const page = await browser.visit(app.url);
  await choose(page, "narrator");
  await send(page, "tell me everything");
  await untilPiece(turns(page), 3);
  const address = page.url();
  const call = app.simulated.calls.at(-1);
  const again = await page.context().newPage();
  await page.close();
  await again.goto(address);
  await untilPiece(turns(again).locator(".reply-open"), 60);
  expect(call?.state).toBe("open");
  await stopButton(again).click();
  await turns(again).locator(".end").getByText("Stopped.").waitFor();
  await eventually(() => call?.state).toBe("closed_by_client");
  await again.close();
});

test("a message that waits is sent again after a reload, and answered once", async () => {
  const page = await browser.visit(app.url);
  await choose(page, "narrator");
  await send(page, "tell me everything");
  await untilPiece(turns(page), 3);
  await choose(page, "assistant");
  await send(page, "and then?");
  await turns(page).getByText("Waiting: 1 turn ahead").waitFor();
  await page.reload();
  await turns(page).getByText("Waiting: 1 turn ahead").waitFor();
  expect(await turns(page).locator(".question").allTextContents()).toEqual([
    "You: tell me everything",
    "You: and then?",
  ]);
  await stopButton(page).click();
  await turns(page).getByText("You said: “and then?”.").waitFor();
  const said = await callerOf(app).history(sessionIdOf(page));
  expect(said.filter((text) => text === "and then?")).toHaveLength(1);
});

test("a session that is opened from the list amid its answer shows it", async () => {
  const page = await browser.visit(app.url);
  await choose(page, "narrator");
  await send(page, "tell me everything");
  await untilPiece(turns(page), 3);
  await page.goto(app.url);
  await page.reload();
  await page.getByText("Say something.").waitFor();
  await sessionButtons(page).first().click();
  await untilPiece(turns(page).locator(".reply-open"), 30);
  await stopButton(page).click();
  await turns(page).locator(".end").waitFor();
});

test("a turn that is nowhere any more leaves no trace on the page", async () => {
  const page = await browser.visit(app.url);
  await say(page, "hello");
  const sessionId = sessionIdOf(page);
  await page.evaluate(([key, sent]) => localStorage.setItem(`parley.turn/${key}`, JSON.stringify(sent)), [
    "k1",
    {
      key: "k1",
      userId: "me",
      sessionId,
      turnId: "nowhere",
      message: "a ghost",
      agentTeam: "",
      interrupts: false,
      sentMs: Date.now(),
    },
  ] as const);
  await page.reload();
  await turns(page).getByText("You said: “hello”.").waitFor();
  await eventually(() => turns(page).count()).toBe(1);
  expect(await page.getByRole("alert").count()).toBe(0);
  await eventually(() => page.evaluate<string[]>("Object.keys(localStorage)")).toEqual([]);
});

test("a message that has waited for hours is given back, not sent", async () => {
  const page = await browser.visit(app.url);
  await say(page, "hello");
  const calls = app.simulated.callCount;
  const sent = {
    key: "k2",
    userId: "me",
    sessionId: sessionIdOf(page),
    turnId: "",
    message: "an old thought",
    agentTeam: "",
    interrupts: false,
    sentMs: Date.now() - 3_600_000,
  };
  await page.evaluate((item) => localStorage.setItem("parley.turn/k2", JSON.stringify(item)), sent);
  await page.reload();
  await eventually(() => messageField(page).inputValue()).toBe("an old thought");
  expect(await turns(page).count()).toBe(1);
  expect(app.simulated.callCount).toBe(calls);
});

test("a long answer is there again soon, and the page can be used meanwhile", async () => {
  const page = await browser.visit(app.url);
  await choose(page, "torrent");
  await send(page, "tell me everything at once");
  await turns(page).locator(".facts").waitFor();
  await send(page, "and again");
  await untilPiece(turns(page).last(), 2000);
  await page.reload();
  await untilPiece(turns(page).last(), 3000);
  await stopButton(page).click();
  await turns(page).last().locator(".end").waitFor();
});
