import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { expect, test } from "vitest";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { eventually, useBrowser } from "../support/browser.ts";
import { singleTeams } from "../support/single-teams.ts";
import { useTestApp } from "../support/use-app.ts";
import {
  actAs,
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

const YAML = JSON.stringify(singleTeams({ assistant: {}, narrator: { model: "sim-9999x5" } }));

const browser = useBrowser();
const app = useTestApp({ yaml: YAML, env: { DRAIN_MS: "0", MAX_TOKENS: "1000000" } });

/** Sessions belong to a user: each test has its own. */
let users = 0;
async function visitAsNewUser() {
  const page = await browser.visit(app.url);
  const user = `user-${++users}`;
  await actAs(page, user);
  return { page, user };
}

test("a second session is begun, and each keeps its own messages", async () => {
  const { page } = await visitAsNewUser();
  await say(page, "in the first");
  await page.getByRole("button", { name: "New session" }).click();
  await page.getByText("Say something.").waitFor();
  const turn = await say(page, "in the second");
  expect(await turn.locator(".reply").textContent()).not.toContain("in the first");

  await eventually(() => sessionButtons(page).locator(".session-name").allInnerTexts()).toEqual([
    "in the second",
    "in the first",
  ]);
  await sessionButtons(page).getByText("in the first").click();
  await eventually(() => turns(page).locator(".question").allInnerTexts()).toEqual([
    expect.stringContaining("in the first"),
  ]);
  expect(await page.locator("[aria-current=page]").textContent()).toContain("in the first");
  expect(await page.getByRole("heading", { level: 1 }).textContent()).toBe("in the first");
});

test("back and forward of the browser go through the sessions", async () => {
  const { page } = await visitAsNewUser();
  await say(page, "one");
  const one = sessionIdOf(page);
  await page.getByRole("button", { name: "New session" }).click();
  await say(page, "two");
  const two = sessionIdOf(page);
  await sessionButtons(page).getByText("one", { exact: true }).click();
  await eventually(() => sessionIdOf(page)).toBe(one);

  await page.goBack();
  await turns(page).locator(".question").getByText("two").waitFor();
  expect(sessionIdOf(page)).toBe(two);
  await page.goForward();
  await turns(page).locator(".question").getByText("one").waitFor();
});

test("a session is deleted when that is confirmed, and only then", async () => {
  const { page, user } = await visitAsNewUser();
  await say(page, "keep me");
  const remove = page.getByRole("button", { name: "Delete keep me" });
  const dialog = page.getByRole("dialog", { name: "Delete this session?" });

  await remove.click();
  await dialog.getByText("“keep me” and its messages will be gone for good.").waitFor();
  await dialog.getByRole("button", { name: "Keep it" }).click();
  await dialog.waitFor({ state: "detached" });
  const sessions = createClient(SessionService, createConnectTransport({ baseUrl: app.url, httpVersion: "1.1" }));
  expect((await sessions.listSessions({ userId: user })).sessions).toHaveLength(1);

  await remove.click();
  await dialog.getByRole("button", { name: "Delete" }).click();
  await page.getByText("No sessions yet.").waitFor();
  await dialog.waitFor({ state: "detached" });
  await page.getByText("Say something.").waitFor();
  expect(sessionIdOf(page)).toBe("");
  expect((await sessions.listSessions({ userId: user })).sessions).toEqual([]);
});

test("a session that is deleted while it answers ends its turn and does not come back", async () => {
  const { page } = await visitAsNewUser();
  await choose(page, "narrator");
  await send(page, "a long story");
  await untilPiece(turns(page), 3);
  const call = app.simulated.calls.at(-1);
  const sessionId = sessionIdOf(page);
  await page.getByRole("button", { name: "Delete a long story" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await page.getByText("No sessions yet.").waitFor();
  await eventually(() => call?.state).toBe("closed_by_client");

  await page.goto(`${app.url}/#/sessions/${sessionId}`);
  await page.getByRole("alert").getByText("This session is gone").waitFor();
});

test("a turn goes on while another session is looked at", async () => {
  const { page } = await visitAsNewUser();
  await choose(page, "narrator");
  await send(page, "a long story");
  await untilPiece(turns(page), 3);
  await page.getByRole("button", { name: "New session" }).click();
  await say(page, "meanwhile");
  await sessionButtons(page).getByText("a long story").click();
  await untilPiece(turns(page), 60);
  expect(await stopButton(page).isVisible()).toBe(true);
  await stopButton(page).click();
  await turns(page).locator(".end").waitFor();
});

test("more answers than a browser has connections: all go on, and each can be looked at and stopped", async () => {
  const { page } = await visitAsNewUser();
  await choose(page, "narrator");
  for (let at = 1; at <= 7; at++) {
    await page.getByRole("button", { name: "New session" }).click();
    await choose(page, "narrator");
    await send(page, `story ${at}`);
    await untilPiece(turns(page), 3);
  }
  await eventually(() => sessionButtons(page).count()).toBe(7);
  for (const at of [1, 7]) {
    await sessionButtons(page).getByText(`story ${at}`).click();
    await turns(page).locator(".question").getByText(`story ${at}`).waitFor();
    await untilPiece(turns(page), 30);
    await stopButton(page).click();
    await turns(page).locator(".end").getByText("Stopped.").waitFor();
  }
});

test("what is written and not sent stays with its session", async () => {
  const { page } = await visitAsNewUser();
  await say(page, "first");
  await messageField(page).fill("half a thought");
  await page.getByRole("button", { name: "New session" }).click();
  await page.getByText("Say something.").waitFor();
  expect(await messageField(page).inputValue()).toBe("");
  await messageField(page).fill("another");
  // One that is empty already is not thrown away.
  await page.getByRole("button", { name: "New session" }).click();
  expect(await messageField(page).inputValue()).toBe("another");
  await sessionButtons(page).getByText("first").click();
  await eventually(() => messageField(page).inputValue()).toBe("half a thought");
});

test("a long list is shown page by page, and stays as long when it is read again", async () => {
  const { page, user } = await visitAsNewUser();
  const sessions = createClient(SessionService, createConnectTransport({ baseUrl: app.url, httpVersion: "1.1" }));
  for (let at = 1; at <= 60; at++) await sessions.createSession({ userId: user, metadata: { title: `session ${at}` } });
  await page.reload();
  await eventually(() => sessionButtons(page).count()).toBe(50);
  await page.getByRole("button", { name: "More sessions" }).click();
  await eventually(() => sessionButtons(page).count()).toBe(60);
  expect(await page.getByRole("button", { name: "More sessions" }).count()).toBe(0);
  await say(page, "one more");
  await eventually(() => sessionButtons(page).first().textContent()).toContain("one more");
  expect(await sessionButtons(page).count()).toBe(60);
});

test("another user has other sessions, and is remembered", async () => {
  const { page, user } = await visitAsNewUser();
  await say(page, "mine");
  const field = page.getByRole("textbox", { name: "You are" });
  await field.fill("somebody-else");
  await field.press("Enter");
  await page.getByText("No sessions yet.").waitFor();
  expect(sessionIdOf(page)).toBe("");
  await page.reload();
  expect(await field.inputValue()).toBe("somebody-else");
  // An empty name is none.
  await field.fill("  ");
  await field.press("Enter");
  expect(await field.inputValue()).toBe("somebody-else");
  await field.fill(user);
  await field.press("Enter");
  await eventually(() => sessionButtons(page).count()).toBe(1);
});
