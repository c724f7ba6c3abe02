import { Redis } from "ioredis";
import { expect, vi } from "vitest";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import type { UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import { moneyKeys } from "../../src/accounts/account-keys.ts";
import type { AccountStore } from "../../src/accounts/account-store.ts";
import { createRedisAccountStore } from "../../src/accounts/redis-account-store.ts";
import type { SimulatedCall } from "../../src/providers/simulated-model.ts";
import { connectRedis } from "../../src/store/redis-connection.ts";
import { chargesOf, countersOf, ledgerOf } from "../support/ledger.ts";

/** What a model's own books have of a call. */
export type Counted = Pick<
  SimulatedCall,
  "model" | "promptTokens" | "completionTokens" | "state" | "body" | "messages"
>;

/** Does something with the accounts on a Redis. */
export async function withAccounts<T>(
  { url }: { readonly url: string },
  work: (accounts: AccountStore) => Promise<T>,
): Promise<T> {
  const connection = connectRedis(url);
  try {
    return await work(createRedisAccountStore({ connection }));
  } finally {
    await connection.close();
  }
}

/** Rows of an account's ledger as they were appended, corrections among them. */
export async function rowsOf(redis: { readonly url: string }, tenant = "default"): Promise<UsageRecord[]> {
  return await withAccounts(redis, (accounts) => ledgerOf(accounts, tenant));
}

/**
 * Waits until nothing is held, and checks that the account adds up: the rows of each scope and period are its counter, no
 * counter stands without rows, and no hold is left. Reads Redis itself, not the store's word for it. Returns the charges.
 */
export async function expectAddsUp(redis: { readonly url: string }, tenant = "default"): Promise<UsageRecord[]> {
  const client = new Redis(redis.url);
  const { prefix, unstarted, started, callPrefix } = moneyKeys(tenant);
  try {
    return await vi.waitFor(
      async () => {
        expect([await client.zcard(unstarted), await client.zcard(started)]).toEqual([0, 0]);
        for (const key of await client.keys(`${callPrefix}*`)) {
          expect(await client.hget(key, "state"), key).toMatch(/^(settled|charged|released)$/);
        }
        const rows = await rowsOf(redis, tenant);
        const sums = new Map([...countersOf(rows)].map(([name, sum]) => [`${prefix}use:${name}`, sum]));
        const counters = new Set([...sums.keys(), ...(await client.keys(`${prefix}use:*`))]);
        for (const key of counters) {
          const [cost, tokens, heldCost, heldTokens] = await client.hmget(
            key,
            "spent_cost",
            "spent_tokens",
            "held_cost",
            "held_tokens",
          );
          const wanted = sums.get(key) ?? { cost: 0n, tokens: 0n };
          const counted = {
            cost: BigInt(cost ?? 0),
            tokens: BigInt(tokens ?? 0),
            held: [heldCost, heldTokens].map(Number),
          };
          expect({ key, ...counted }).toEqual({ key, ...wanted, held: [0, 0] });
        }
        return chargesOf(rows);
      },
      { timeout: 20_000, interval: 50 },
    );
  } finally {
    client.disconnect();
  }
}

/** The calls that a model has seen of a turn, by its message. */
export function callsOf<Call extends Pick<Counted, "messages">>(calls: readonly Call[], message: string): Call[] {
  return calls.filter(({ messages }) => messages.some(({ content }) => content === message));
}

/**
 * Checks a charge against the model's own books: exact where it says so, else between what the model had said and what was
 * held.
 *
 * @param delivered Tokens that readers got of the call.
 */
export function expectTrue(charge: UsageRecord | undefined, call: Counted, { delivered = 0 } = {}): void {
  expect(charge, "a call that the model saw has its row").toBeDefined();
  if (charge === undefined) return;
  const bound = Number(call.body.max_completion_tokens);
  expect(bound).toBeGreaterThan(0);
  if (charge.usageSource === UsageSource.PROVIDER) {
    expect(call.state).toBe("answered");
    expect([charge.promptTokens, charge.completionTokens]).toEqual([
      BigInt(call.promptTokens),
      BigInt(call.completionTokens),
    ]);
    return;
  }
  expect(charge.usageSource).toBeOneOf([UsageSource.TOKENIZER_ESTIMATE, UsageSource.HOLD_MAXIMUM]);
  expect(Number(charge.completionTokens)).toBeGreaterThanOrEqual(delivered);
  expect(Number(charge.completionTokens)).toBeLessThanOrEqual(bound);
}

/** A turn's charges with the calls that they are of, in order; how many have no call is known. */
export function pairedUp<Call extends Counted>(
  charges: readonly UsageRecord[],
  calls: readonly Call[],
  { withoutCall = 0 } = {},
): { readonly charge: UsageRecord; readonly call: Call }[] {
  let spare = withoutCall;
  let next = 0;
  const pairs: { charge: UsageRecord; call: Call }[] = [];
  for (const charge of charges) {
    if (spare > 0 && charge.usageSource === UsageSource.HOLD_MAXIMUM) {
      spare--;
      continue;
    }
    const call = calls[next++];
    expect(call, `${charge.recordId} has no call`).toBeDefined();
    if (call !== undefined) pairs.push({ charge, call });
  }
  expect({ calls: calls.length, spare }).toEqual({ calls: next, spare: 0 });
  return pairs;
}
