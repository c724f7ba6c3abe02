import type { Locator, Page } from "playwright-core";

// What a person finds on the page, by role and name as assistive technology finds it.

export const messageField = (page: Page): Locator => page.getByRole("textbox", { name: "Message" });
export const sendButton = (page: Page): Locator => page.getByRole("button", { name: "Send" });
export const stopButton = (page: Page): Locator => page.getByRole("button", { name: "Stop" });
export const conversation = (page: Page): Locator => page.getByRole("region", { name: "Conversation" });
export const turns = (page: Page): Locator => conversation(page).getByRole("article");
export const sessionButtons = (page: Page): Locator =>
  page.getByRole("navigation", { name: "Your sessions" }).locator(".session-open");

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

/** The id of the session that the address names; empty: none. */
export function sessionIdOf(page: Page): string {
  return /^#\/sessions\/(.+)$/.exec(new URL(page.url()).hash)?.[1] ?? "";
}
