import { expect, test } from "vitest";
import { createParley, reasonOf } from "../../client/client.ts";
import { refusalOf } from "../rpc/refusals.ts";
import { useTestApp } from "../support/use-app.ts";

// Refusals that say when the same call can succeed: a user may start one turn in two seconds.

const app = useTestApp({ env: { RATE_LIMIT: "1", RATE_WINDOW: "2" } });

test("one is waited for as long as it asks, and no connection was lost", async () => {
  const parley = createParley({ baseUrl: app.url });
  const told: string[] = [];
  const ask = (message: string) =>
    parley.chat({ message, userId: "patient" }, { timeoutMs: 60_000, onConnection: (is) => told.push(is) });
  const replies = await Promise.all(["one", "two", "three"].map(ask));
  for (const [index, message] of ["one", "two", "three"].entries()) {
    expect(replies[index]?.response).toContain(`“${message}”`);
  }
  expect(told).not.toContain("lost");
});

test.each([
  ["the caller waits for none", "u1", { maxRetryDelayMs: 0 }],
  ["it asks for more than is left", "u2", { timeoutMs: 200 }],
])("one is thrown at once where %s", async (_, userId, options) => {
  const parley = createParley({ baseUrl: app.url });
  let refused: unknown;
  // The first call, or one after it, comes amid a window that is used up.
  while (refused === undefined) {
    await parley.turns.chat({ message: "hello", userId }).catch(() => undefined);
    refused = await parley.chat({ message: "hello", userId }, options).then(
      () => undefined,
      (error: unknown) => error,
    );
  }
  expect(reasonOf(refused)).toBe("RATE_LIMITED");
  expect(await refusalOf(Promise.reject(refused))).toBe(refused);
});
