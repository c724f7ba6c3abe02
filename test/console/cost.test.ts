import { expect, test } from "vitest";
import { costText } from "../../web/src/sentences.ts";
import { eventually, useBrowser } from "../support/browser.ts";
import { useTestApp } from "../support/use-app.ts";
import { conversation, say } from "./console.ts";

// What a turn costs, what its session has cost, and what is left of the budget that pays for it.

const LIMIT_MICRO_USD = 1_000_000n;
const budgets = [{ scope: "user", id: "*", period: "month", limit_micro_usd: Number(LIMIT_MICRO_USD) }];

const browser = useBrowser();
const app = useTestApp({ model: "gpt-4o", yaml: JSON.stringify({ budgets }) });
const free = useTestApp({ model: "gpt-4o" });

test("each turn shows its cost; the session's sum and what is left of the budget follow it", async () => {
  const page = await browser.visit(app.url);
  let spent = 0n;
  for (const message of ["how much is one?", "and two?"]) {
    const turn = await say(page, message);
    const dollars = /\$([\d.]+)/.exec((await turn.locator(".facts").textContent()) ?? "")?.[1];
    spent += BigInt(Math.round(Number(dollars) * 1e6));
    const [total, left] = [spent, LIMIT_MICRO_USD - spent].map(costText);
    await eventually(() => page.locator("main").textContent()).toContain(
      `tokens, ${total} · Left of your budget: ${left}`,
    );
  }
  expect(spent).toBeGreaterThan(0n);
});

test("without a budget nothing is said of one", async () => {
  const page = await browser.visit(free.url);
  await say(page, "how much is left?");
  await page.getByText(/This session so far/).waitFor();
  expect(
    await conversation(page)
      .getByText(/budget/)
      .count(),
  ).toBe(0);
});
