import { ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { moneyKeys } from "../../src/accounts/account-keys.ts";
import { periodOf } from "../../src/accounts/budget-periods.ts";
import { createRedisAccountStore } from "../../src/accounts/redis-account-store.ts";
import { ledgerOf } from "../support/ledger.ts";
import { chatOf } from "./clients.ts";
import { patiently } from "./final-state.ts";
import type { MoneySeen } from "./observations.ts";
import { SPENDER, type SpendAction, spendMessageOf } from "./schedule.ts";
import { CAP_TOKENS, pauseFor, type World } from "./world.ts";

const TENANT = "default";

/** Each turn of a spender may use so many tokens: two calls at a time do not fit into the cap. */
const SPENDER_TOKENS = 3_000;

/** Between two looks at what is spent, in milliseconds. */
const LOOK_MS = 30;

/** Owners that live settle their calls within this time, in milliseconds; those of others are lost. */
const SETTLE_MS = 2_000;

/** A call that counts as lost is charged within this time, in milliseconds. */
const SWEEP_MS = 40_000;

/** Clients that spend from one budget, and somebody who watches it. */
export interface Spenders {
  /** Calls a model until it is answered or refused. Whatever it ends with is right. */
  spend(action: SpendAction): Promise<void>;
  /** Times that a budget refused, before a turn or in it. */
  readonly refusals: number;
  /** Ends the watch; what was seen beyond the cap. */
  stop(): Promise<string[]>;
}

export function startSpenders(world: World, { useCase }: { useCase: string }): Spenders {
  const overCap = new Set<string>();
  let refusals = 0;
  let stopped = false;
  const watch = async (): Promise<void> => {
    while (!stopped) {
      const { startMs } = periodOf("hour", Date.now());
      const key = `${moneyKeys(TENANT).prefix}use:hour:${startMs}:use_case:${useCase}`;
      const read = () => world.connection.use((client) => client.hmget(key, "spent_tokens", "held_tokens"));
      // A Redis that is away has nothing to be seen.
      const [spent, held] = (await read().catch(() => [])).map(Number);
      if (spent !== undefined && held !== undefined && spent + held > CAP_TOKENS)
        overCap.add(`${useCase} has spent ${spent} tokens and holds ${held}, of ${CAP_TOKENS}`);
      await pauseFor(LOOK_MS);
    }
  };
  const watching = watch();
  return {
    get refusals() {
      return refusals;
    },
    async spend({ name, replica }) {
      const chat = await chatOf(world, replica);
      const request = { userId: SPENDER, useCase, message: spendMessageOf(name), maxTokens: SPENDER_TOKENS };
      try {
        for await (const { event } of chat.streamChat(request)) {
          if (event.case === "turnCompleted" && event.value.finishReason === FinishReason.BUDGET_EXHAUSTED) refusals++;
        }
      } catch (error) {
        const [info] = ConnectError.from(error).findDetails(ErrorInfoSchema);
        if (info?.reason === "BUDGET_EXHAUSTED") refusals++;
      }
    },
    async stop() {
      stopped = true;
      await watching;
      return [...overCap];
    },
  };
}

/**
 * Reads ledger and counters when nothing is to come any more: calls whose owners were lost count as lost at once, and not
 * after minutes.
 */
export async function readMoney(world: World): Promise<Omit<MoneySeen, "overCap">> {
  const { prefix, unstarted, started, callPrefix } = moneyKeys(TENANT);
  const held = (): Promise<string[]> =>
    patiently(() =>
      world.connection.use(async (client) => [
        ...(await client.zrange(unstarted, "0", "-1")),
        ...(await client.zrange(started, "0", "-1")),
      ]),
    );
  const untilNoneIsHeld = async (forMs: number): Promise<string[]> => {
    const untilMs = performance.now() + forMs;
    for (;;) {
      const left = await held();
      if (left.length === 0 || performance.now() > untilMs) return left;
      await pauseFor(LOOK_MS);
    }
  };
  await untilNoneIsHeld(SETTLE_MS);
  await patiently(() =>
    world.connection.use(async (client) => {
      for (const callId of await client.zrange(started, "0", "-1")) {
        // Where it is settled meanwhile, nothing becomes of it.
        if ((await client.hget(`${callPrefix}${callId}`, "state")) !== "started") continue;
        await client.hset(`${callPrefix}${callId}`, "until", "1");
        await client.zadd(started, "XX", 1, callId);
      }
    }),
  );
  const left = await untilNoneIsHeld(SWEEP_MS);
  const accounts = createRedisAccountStore({ connection: world.connection });
  // What has its row may be corrected still, by who looked after it or by an owner that wakes up.
  for (;;) {
    const [rows, counters] = await patiently(() =>
      Promise.all([ledgerOf(accounts, TENANT), readCounters(world, prefix)]),
    );
    await pauseFor(LOOK_MS);
    const again = await patiently(() => ledgerOf(accounts, TENANT));
    if (again.length === rows.length) return { rows, counters, held: left, capTokens: CAP_TOKENS };
  }
}

async function readCounters(world: World, prefix: string): Promise<MoneySeen["counters"]> {
  return await world.connection.use(async (client) => {
    const counters = new Map<string, { cost: bigint; tokens: bigint; heldCost: bigint; heldTokens: bigint }>();
    for (const key of await client.keys(`${prefix}use:*`)) {
      const fields = await client.hmget(key, "spent_cost", "spent_tokens", "held_cost", "held_tokens");
      const [cost = 0n, tokens = 0n, heldCost = 0n, heldTokens = 0n] = fields.map((field) => BigInt(field ?? 0));
      counters.set(key.slice(`${prefix}use:`.length), { cost, tokens, heldCost, heldTokens });
    }
    return counters;
  });
}
