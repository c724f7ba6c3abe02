import { expect, test } from "vitest";
import { callerOf } from "../app/clients.ts";
import { eventually, useBrowser } from "../support/browser.ts";
import { startTestApp } from "../support/parley-app.ts";
import { useTestApp } from "../support/use-app.ts";
import { choose, messageField, say, send, sessionButtons, sessionIdOf, turns, untilPiece } from "./console.ts";

const browser = useBrowser();
const app = useTestApp({
  env: { DRAIN_MS: "0" },
  yaml: yamlOf(["sim-500", "sim-429", "sim-401", "sim-cut", "sim-9999x20", "sim-content-filter"]),
});

const cases = [
  { team: "sim-500", sentence: "The model did not answer, or broke off. Try again in 1 s. MODEL_UNAVAILABLE" },
  {
    team: "sim-429",
    sentence: "The model's provider takes no more calls for now. Try again in 7 s. MODEL_RATE_LIMITED",
  },
  {
    team: "sim-401",
    sentence:
      "The model's provider refuses the call; an operator must check the model's name, key and endpoint. MODEL_REFUSED",
  },
];

test.each(cases)("$team: the error is a sentence, and the message is given back", async ({ team, sentence }) => {
  const page = await browser.visit(app.url);
  await choose(page, team);
  await send(page, "please answer");
  const alert = turns(page).getByRole("alert");
  await eventually(() => alert.textContent()).toBe(sentence);
  await eventually(() => messageField(page).inputValue()).toBe("please answer");

  // Once the model is well again, Enter is all it takes.
  await choose(page, "assistant");
  await messageField(page).press("Enter");
  await turns(page).getByText("You said: “please answer”.").waitFor();
  expect(await alert.count()).toBe(0);
  expect(await turns(page).count()).toBe(1);
});

test("an answer that breaks off stays in sight with the sentence, and the message is given back", async () => {
  const page = await browser.visit(app.url);
  await choose(page, "sim-cut");
  await send(page, "please answer");
  await turns(page).getByRole("alert").getByText("The model did not answer, or broke off.").waitFor();
  expect(await turns(page).locator(".reply").textContent()).toContain("You said:");
  expect(await turns(page).locator(".reply-open").count()).toBe(0);
  await eventually(() => messageField(page).inputValue()).toBe("please answer");
});

test("what was written meanwhile is kept when a turn fails", async () => {
  const page = await browser.visit(app.url);
  await choose(page, "sim-9999x20");
  await send(page, "please answer");
  await untilPiece(turns(page), 3);
  await messageField(page).fill("another thought");
  await callerOf(app).sessions.deleteSession({ sessionId: sessionIdOf(page) });
  await turns(page).getByRole("alert").getByText("This session was deleted while it answered.").waitFor();
  expect(await messageField(page).inputValue()).toBe("another thought");
});

test("an end that is no error is told in a sentence", async () => {
  const page = await browser.visit(app.url);
  await choose(page, "sim-content-filter");
  const turn = await say(page, "please answer");
  await turn.getByText("The model's provider refused to go on because of the content.").waitFor();
  expect(await turn.getByRole("alert").count()).toBe(0);
});

test("a session that was deleted elsewhere says so, and what was written goes on in a new one", async () => {
  const page = await browser.visit(app.url);
  await say(page, "soon gone");
  const sessionId = sessionIdOf(page);
  await callerOf(app).sessions.deleteSession({ sessionId });
  await send(page, "are you there?");
  await page.getByRole("alert").getByText("This session is gone: it was deleted, or it has expired.").waitFor();
  await eventually(() => sessionButtons(page).getByText("soon gone").count()).toBe(0);

  await page.getByRole("button", { name: "Start a new session" }).click();
  await eventually(() => messageField(page).inputValue()).toBe("are you there?");
  await messageField(page).press("Enter");
  await turns(page).getByText("You said: “are you there?”.").waitFor();
  expect(sessionIdOf(page)).not.toBe(sessionId);
});

test("an address of a session that is not there says so", async () => {
  const page = await browser.visit(`${app.url}/#/sessions/never-was`);
  await page.getByRole("alert").getByText("This session is gone").waitFor();
  expect(await page.getByRole("button", { name: "Try again" }).count()).toBe(0);
  await page.getByRole("button", { name: "Start a new session" }).click();
  await page.getByText("Say something.").waitFor();
  expect(sessionIdOf(page)).toBe("");
});

test("too many turns: the sentence says how many are allowed and when to come back", async () => {
  const limited = await startTestApp({ env: { RATE_LIMIT: "1", RATE_WINDOW: "3600" } });
  try {
    const page = await browser.visit(limited.url);
    await say(page, "the first");
    await send(page, "the second");
    const alert = page.getByRole("alert");
    await alert.getByText("You have started as many turns as are allowed for now.").waitFor();
    expect(await alert.textContent()).toMatch(/\b1 turns? .*3,?600 .*Try again in \d+ min\. RATE_LIMITED$/);
    expect(await messageField(page).inputValue()).toBe("the second");
  } finally {
    await limited.close();
  }
});

test("a message that is too long is counted while it is written, and refused in a sentence", async () => {
  const page = await browser.visit(app.url);
  await messageField(page).fill("x".repeat(10_001));
  await page.getByText("10,001 / 10,000").waitFor();
  await messageField(page).press("Enter");
  await eventually(() => page.getByRole("alert").textContent()).toBe(
    "The message must have 1 to 10,000 characters. INVALID_FIELD",
  );
  expect((await messageField(page).inputValue()).length).toBe(10_001);
});

test("something in between that answers with a page of its own does not lose the message", async () => {
  const page = await browser.visit(app.url);
  let between = true;
  await page.route("**/parley.chat.v1.ChatService/**", (route) =>
    between
      ? route.fulfill({ status: 502, contentType: "text/html", body: "<html><body>Bad Gateway</body></html>" })
      : route.continue(),
  );
  await send(page, "please answer");
  await turns(page).getByText("The service does not answer. Trying again …").waitFor();
  expect(await page.getByRole("alert").count()).toBe(0);
  between = false;
  await turns(page).getByText("You said: “please answer”.").waitFor();
  expect(await turns(page).count()).toBe(1);
});

test("something in between that refuses for good is told as what it is", async () => {
  const page = await browser.visit(app.url);
  await page.route("**/parley.chat.v1.ChatService/**", (route) =>
    route.fulfill({ status: 403, contentType: "text/html", body: "<html><body>Forbidden</body></html>" }),
  );
  await send(page, "please answer");
  await eventually(() => page.getByRole("alert").textContent()).toBe(
    "The answer did not come through whole. Try again in a moment.",
  );
  expect(await messageField(page).inputValue()).toBe("please answer");
});

/** The default assistant, and a team for each model. */
function yamlOf(models: readonly string[]): string {
  const agents = models.map((model) => `  ${model}: { model: ${model} }`);
  const teams = models.map((model) => `  ${model}: { kind: single, agent: ${model} }`);
  return [
    "agents:",
    "  assistant: {}",
    ...agents,
    "teams:",
    "  assistant: { kind: single, agent: assistant }",
    ...teams,
  ].join("\n");
}
