import { readFileSync } from "node:fs";
import type { Page } from "playwright-core";
import { describe, expect, onTestFinished, test } from "vitest";
import { type ScriptedCall, startScriptedModel } from "../../src/providers/scripted-model.ts";
import { readExample } from "../../standalone/example.ts";
import { eventually, useBrowser, type VisitOptions } from "../support/browser.ts";
import { textContrasts } from "../support/contrast.ts";
import { startTestApp } from "../support/parley-app.ts";
import { choose, hasFocus, messageField, say, send, turns } from "./console.ts";

const browser = useBrowser();

/** Opens the console of a service whose model follows a script. */
async function visit(yaml: string, script: readonly ScriptedCall[], options: VisitOptions = {}) {
  const model = await startScriptedModel(script);
  onTestFinished(() => model.close());
  const app = await startTestApp({ yaml, env: { OPENAI_BASE_URL: model.baseUrl, DRAIN_MS: "0" } });
  onTestFinished(() => app.close());
  return { page: await browser.visit(app.url, options), model };
}

const visitExample = (name: string, options?: VisitOptions) => {
  const { configFile, script } = readExample(name);
  return visit(readFileSync(configFile, "utf8"), script, options);
};

const approve = (page: Page) => page.getByRole("button", { name: "Approve till.refund" });
const refuse = (page: Page) => page.getByRole("button", { name: "Refuse till.refund" });
const tools = (page: Page) => page.locator(".tool");

test("an approval is a button, there after a reload, reached by keyboard, and gone when it is answered", async () => {
  const { page, model } = await visitExample("approval");
  await say(page, "Please pay back order A-17: the teapot is broken.");
  const card = page.getByRole("region", { name: "Approval" });
  expect(await card.textContent()).toMatch(/^cashier asks to call till\.refundorderA-17euros24\.9/);
  await eventually(() => page.getByRole("status").textContent()).toBe(
    "cashier asks to call till.refund. Approve it or refuse it.",
  );
  await page.reload();
  await approve(page).waitFor();
  expect(model.calls).toHaveLength(1);
  await messageField(page).focus();
  for (const button of ["If you refuse, tell the agent why", "Refuse till.refund", "Approve till.refund"]) {
    await page.keyboard.press("Shift+Tab");
    const named = page.getByRole(button.startsWith("If") ? "textbox" : "button", { name: button });
    await eventually(() => hasFocus(named)).toBe(true);
  }
  await page.keyboard.press("Enter");
  await turns(page).nth(1).getByText("Done: 24.90 euros for order A-17 are paid back.").waitFor();
  expect(await turns(page).nth(1).locator(".question").textContent()).toBe("You: Approved.");
  await eventually(() => hasFocus(messageField(page))).toBe(true);
  await tools(page).getByText("Called till.refund.").click();
  await tools(page).getByText("Paid back 24.90 euros for order A-17.").waitFor();
  expect(await approve(page).count()).toBe(0);

  await say(page, "The same for A-18, please: 900 euros.");
  await page.getByRole("textbox", { name: "If you refuse, tell the agent why" }).fill("Nobody paid 900 euros.");
  await refuse(page).click();
  await turns(page).nth(3).getByText("till.refund was not allowed.").waitFor();
  await turns(page).nth(3).locator(".facts").waitFor();
  expect(await turns(page).nth(3).locator(".question").textContent()).toBe("You: Not approved. Nobody paid 900 euros.");
  expect(model.calls.at(-1)?.messages.at(-1)?.content).toContain("The user said: Nobody paid 900 euros.");
  model.verify();
});

test("of several approvals each has its answer before any is sent", async () => {
  const { configFile } = readExample("approval");
  const refund = (order: string) => ({ name: "till.refund", arguments: { order, euros: 5 } });
  const { page, model } = await visit(readFileSync(configFile, "utf8"), [
    { toolCalls: [refund("A-1"), refund("A-2")] },
    { text: "One of them." },
  ]);
  await say(page, "both, please");
  await approve(page).nth(0).click();
  expect(await approve(page).nth(0).getAttribute("aria-pressed")).toBe("true");
  expect([await turns(page).count(), model.calls.length]).toEqual([1, 1]);
  await refuse(page).nth(1).click();
  await turns(page).nth(1).getByText("One of them.").waitFor();
  expect(model.calls[1]?.messages.slice(-2).map(({ content }) => content)).toEqual([
    "Paid back 5.00 euros for order A-1.",
    "The user did not approve the call. It was not made.",
  ]);
});

test("a message in place of the buttons refuses the call, and the field says so", async () => {
  const { configFile } = readExample("approval");
  const { page, model } = await visit(readFileSync(configFile, "utf8"), [
    { toolCalls: [{ name: "till.refund", arguments: { order: "A-1", euros: 5 } }] },
    { expect: { last: "wait a day" }, text: "I wait." },
  ]);
  await say(page, "pay it back");
  await eventually(() => messageField(page).getAttribute("placeholder")).toBe("A message refuses the call");
  await send(page, "wait a day");
  await turns(page).nth(1).getByText("I wait.").waitFor();
  expect(await approve(page).count()).toBe(0);
  model.verify();
});

test("a question is set apart, waits through a reload, and is answered to the team that asked", async () => {
  const { configFile, script } = readExample("swarm-triage");
  const yaml = readFileSync(configFile, "utf8").replace("teams:\n", "teams:\n  other: { agent: technician }\n");
  const { page, model } = await visit(yaml, script);
  await choose(page, "support");
  await say(page, "My teapot arrived broken. I want my money back.");
  await page.reload();
  await page.locator(".reply-asks").getByText("What is the number of your order?").waitFor();
  await turns(page).getByText("triage hands over to refunds.").waitFor();
  await turns(page).getByText("The team waits for your answer.").waitFor();
  expect(await messageField(page).getAttribute("placeholder")).toBe("Your answer to refunds");
  await send(page, "It was A-17.");
  await turns(page).nth(1).getByText("The money for order A-17").waitFor();
  expect(await page.locator(".reply-asks").count()).toBe(0);
  expect(await turns(page).getByText("The team waits for your answer.").count()).toBe(0);
  expect(model.problems).toEqual([]);
});

test("a message that fails a check is given back, and the words say that no model has seen it", async () => {
  const { page, model } = await visitExample("tool-user");
  const card = "My card is 4111 1111 1111 1111, does that help?";
  await send(page, card);
  await turns(page).getByText("The guardrail no_card_numbers refused this message. No model has seen it.").waitFor();
  await eventually(() => messageField(page).inputValue()).toBe(card);
  expect(model.calls).toEqual([]);
  // The turn that came to nothing makes way for the next.
  await send(page, "Where is my order A-17?");
  await turns(page).last().getByText("Your teapot is on its way with parcel 4711.").waitFor();
  expect(await turns(page).count()).toBe(1);
});

test.each([
  ["writer-and-critic", "A slogan for a tea shop.", ["writer", "critic"]],
  [
    "selector-of-experts",
    "A dinner for six people, please, for less than 30 euros.",
    ["selector", "cook", "shopper", "host"],
  ],
])("in %s the costs of the agents open by keyboard, and add up", async (name, message, agents) => {
  const { page } = await visitExample(name);
  const turn = await say(page, message);
  await turn.getByText("The team is done: its closing word was said.").waitFor();
  if (agents.includes("selector")) expect(await turn.locator(".note").count()).toBe(3);
  const summary = turn.locator(".facts summary");
  await summary.focus();
  await page.keyboard.press("Enter");
  const rows = turn.getByRole("row");
  await rows.first().waitFor();
  const cells = await rows.evaluateAll((nodes) =>
    nodes.slice(1).map((row) => [...row.children].map((cell) => String(cell.textContent))),
  );
  expect(cells.map(([agent]) => agent)).toEqual(agents);
  const tokens = cells.reduce((sum, [, , each = ""]) => sum + Number(each), 0);
  expect(await summary.textContent()).toContain(`${tokens} tokens (`);
  expect(cells.every(([, calls, , cost = ""]) => Number(calls) > 0 && /^\$0\.0\d+$/.test(cost))).toBe(true);
});

describe.each(["light", "dark"] as const)("on a narrow screen in %s", (colorScheme) => {
  const options = { colorScheme, viewport: { width: 360, height: 740 }, reducedMotion: "reduce" } as const;
  test.each([
    ["approval", "Please pay back order A-17: the teapot is broken."],
    ["swarm-triage", "My teapot arrived broken. I want my money back."],
    ["selector-of-experts", "A dinner for six people, please, for less than 30 euros."],
    ["tool-user", "My card is 4111 1111 1111 1111, does that help?"],
  ])("%s can be read, and nothing scrolls sideways", async (name, message) => {
    const { page } = await visitExample(name, options);
    const turn = await say(page, message);
    const summary = turn.locator(".facts summary");
    if ((await summary.count()) > 0) await summary.click();
    const contrasts = await textContrasts(page);
    expect(contrasts.filter(({ ratio }) => ratio < 4.5)).toEqual([]);
    expect(await page.evaluate<number>("document.documentElement.scrollWidth - window.innerWidth")).toBeLessThanOrEqual(
      0,
    );
    for (const button of await page.locator(".approval-buttons button").all()) {
      const box = await button.boundingBox();
      expect(box !== null && box.x >= 0 && box.x + box.width <= 360).toBe(true);
    }
  });
});
