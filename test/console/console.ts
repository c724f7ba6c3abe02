import type { Locator, Page } from "playwright-core";

// What a person finds on the page, by role and name as assistive technology finds it.

export const messageField = (page: Page): Locator => page.getByRole("textbox", { name: "Message" });
export const sendButton = (page: Page): Locator => page.getByRole("button", { name: "Send" });
export const stopButton = (page: Page): Locator => page.getByRole("button", { name: "Stop" });
export const conversation = (page: Page): Locator => page.getByRole("region", { name: "Conversation" });
export const turns = (page: Page): Locator => conversation(page).getByRole("article");
export const sessionButtons = (page: Page): Locator =>
  page.getByRole("navigation", { name: "Your sessions" }).locator(".session-open");

/** Makes the page that of a user who has no sessions yet. */
export async function actAs(page: Page, user: string): Promise<void> {
  const field = page.getByRole("textbox", { name: "You are" });
  await field.fill(user);
  await field.press("Enter");
  await page.getByText("No sessions yet.").waitFor();
}

/** Chooses the team that answers. */
export async function choose(page: Page, team: string): Promise<void> {
  await page.getByRole("combobox", { name: "Team that answers" }).selectOption(team);
}

/** Types a message and sends it with Enter. */
export async function send(page: Page, message: string): Promise<void> {
  await messageField(page).fill(message);
  await messageField(page).press("Enter");
}

/** Sends a message and waits for its turn's end. Returns the turn. */
export async function say(page: Page, message: string): Promise<Locator> {
  const before = await turns(page).count();
  await send(page, message);
  const turn = turns(page).nth(before);
  await turn.locator(".facts").waitFor();
  return turn;
}

/** Waits until something shows the piece of this number of a simulated story (`sim-<pieces>x<ms>`). */
export async function untilPiece(where: Locator, number: number): Promise<void> {
  await where.getByText(new RegExp(`piece ${number}\\b`)).waitFor();
}

/** The id of the session that the address names; empty: none. */
export function sessionIdOf(page: Page): string {
  return /^#\/sessions\/(.+)$/.exec(new URL(page.url()).hash)?.[1] ?? "";
}

/** Whether what is typed goes there. */
export async function hasFocus(element: Locator): Promise<boolean> {
  return (await element.and(element.page().locator(":focus")).count()) === 1;
}

/** The value of a CSS property as it is applied. */
export function styleOf(element: Locator, property: string): Promise<string> {
  return element.evaluate(
    (node, name) => node.ownerDocument.defaultView.getComputedStyle(node).getPropertyValue(name) as string,
    property,
  );
}
