import { expect, test } from "vitest";
import type { AccountStore } from "../../src/accounts/account-store.ts";
import { createMemoryAccountStore } from "../../src/accounts/memory-account-store.ts";
import { createPriceTable } from "../../src/accounts/price-table.ts";
import { pricesYamlSchema, readPrices } from "../../src/accounts/prices-yaml.ts";
import { createTurnAccount } from "../../src/turns/turn-account.ts";

// A request may be sent when its call is marked as started by the turn's owner, and not before.

const payer = { tenant: "acme", team: "", userId: "ann", useCase: "", sessionId: "s1", turnId: "t1", version: "1" };
const attempt = { model: "gpt-4o", promptTokens: 10, maxOutputTokens: 100, timeoutMs: 60_000 };
const callId = "t1/1/1.1";

function accountOf(accounts: AccountStore, owner: string) {
  const account = createTurnAccount({
    accounts,
    prices: createPriceTable(readPrices(pricesYamlSchema.parse(undefined))),
    payer,
    owner,
    onOverHold: () => expect.unreachable(),
    onError: (error) => expect.unreachable(String(error)),
  });
  account.beginCall("t1/1/1", "assistant");
  return account;
}

test("a call that was begun is marked as started by its owner", async () => {
  const accounts = createMemoryAccountStore();
  await accountOf(accounts, "me").beforeAttempt(attempt);
  expect(await accounts.find({ tenant: "acme", callId })).toMatchObject({ state: "started" });
  expect(await accounts.start({ tenant: "acme", callId }, "me")).toBe("started");
});

test("a call that another owner has started is not sent again", async () => {
  const accounts = createMemoryAccountStore();
  await accountOf(accounts, "another").beforeAttempt(attempt);
  await expect(accountOf(accounts, "me").beforeAttempt(attempt)).rejects.toMatchObject({ reason: "LEASE_LOST" });
  expect(await accounts.start({ tenant: "acme", callId }, "another")).toBe("started");
});

test("a call that has been charged is not sent again", async () => {
  const accounts = createMemoryAccountStore();
  await accountOf(accounts, "another").beforeAttempt(attempt);
  await accounts.lose({ tenant: "acme", callId });
  await expect(accountOf(accounts, "me").beforeAttempt(attempt)).rejects.toMatchObject({ reason: "LEASE_LOST" });
});

test("a start that comes before its hold is asked for again, and waited for", async () => {
  const accounts = createMemoryAccountStore();
  const outcomes: string[] = [];
  let held: Promise<unknown> = Promise.resolve();
  const slow: AccountStore = {
    ...accounts,
    hold(call) {
      // The price has changed, say: the start that was sent along finds no hold.
      const holding = new Promise((resolve) => setImmediate(resolve)).then(() => accounts.hold(call));
      held = holding;
      return holding;
    },
    async start(call, owner) {
      const outcome = await accounts.start(call, owner);
      outcomes.push(outcome);
      return outcome;
    },
  };
  await accountOf(slow, "me").beforeAttempt(attempt);
  await held;
  expect(outcomes).toEqual(["not_held", "started"]);
});
