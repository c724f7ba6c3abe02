import { create } from "@bufbuild/protobuf";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, vi } from "vitest";
import { type TurnStep, TurnStepSchema } from "../../gen/parley/storage/v1/turn_step_pb.js";
import type { ClaimedTurn, Lease, NewTurn, Store } from "../../src/turns/ports.ts";
import { describeBusySessions } from "./busy-contract.ts";
import { describeClaims } from "./claim-contract.ts";
import { describeFollowing } from "./follow-contract.ts";
import { describeJournal } from "./journal-contract.ts";
import { describeKeys } from "./key-contract.ts";
import { describeStops } from "./stop-contract.ts";
import { begin, newTurn, type StoreSubject } from "./store-contract.ts";

/** How a store is opened. */
export interface Times {
  readonly ttlMs: number;
  readonly leaseMs: number;
}

/** What the cases of the turns' contract work on. */
export interface StoresUnderTest {
  /** On empty state, with long leases. */
  readonly store: Store;
  /** On empty state. */
  open(times: Times): Promise<Store>;
  /** On the state that is there, as another process opens it; the embedded store's state is one process's. */
  join(times?: Times): Promise<Store>;
}

export interface SharedStoreSubject extends StoreSubject {
  /** A further store on the state that `open` has made; `opened` is the newest of that. */
  join(times: Times, opened: Store): Promise<Store>;
}

export const LONG: Times = { ttlMs: 60_000, leaseMs: 10_000 };
export const QUICK: Times = { ttlMs: 60_000, leaseMs: 150 };
export const SESSION = { tenant: "acme", sessionId: "s1" } as const;

/** Longer than anything that is waited for. */
export const WAIT = { timeout: 10_000, interval: 20 } as const;

/** What every store must do for turns that survive their owners. */
export function describeTurnsContract(name: string, subject: SharedStoreSubject): void {
  describe(`the contract of turns: ${name}`, () => {
    const opened: Store[] = [];
    let store: Store;
    const open = async (times: Times): Promise<Store> => {
      const fresh = await subject.open(times);
      opened.push(fresh);
      return fresh;
    };
    const stores: StoresUnderTest = {
      get store() {
        return store;
      },
      open,
      async join(times = LONG) {
        const joined = await subject.join(times, opened.at(-1) ?? store);
        opened.push(joined);
        return joined;
      },
    };
    beforeAll(() => subject.start(), 60_000);
    afterAll(() => subject.stop(), 60_000);
    beforeEach(async () => {
      store = await open(LONG);
    });
    afterEach(async () => {
      await Promise.all([...new Set(opened.splice(0))].map((used) => used.close()));
    });

    describeJournal(stores);
    describeStops(stores);
    describeClaims(stores);
    describeBusySessions(stores);
    describeKeys(stores);
    describeFollowing(stores);
  });
}

/** A line of a journal. */
export function line(number: number, call: number, sequence: bigint, step: TurnStep["step"] = PREPARED): TurnStep {
  return create(TurnStepSchema, { schemaVersion: 1, line: number, call, sequence, step });
}

const PREPARED: TurnStep["step"] = {
  case: "prepared",
  value: { $typeName: "parley.storage.v1.CallPrepared", agent: "a", name: "gpt-4", usedTokens: 0n },
};

/** Begins a turn in a session of its own. */
export async function beginNew(store: Store, fields: Partial<NewTurn> = {}): Promise<Lease> {
  const { lease } = await begin(store, { ...newTurn(SESSION.sessionId), createSession: true, ...fields });
  return lease;
}

/** Waits until a turn's owner counts as lost, and takes the turn. */
export function untilClaimed(store: Store): Promise<ClaimedTurn> {
  return vi.waitFor(async () => {
    const [claimed, ...others] = await store.claimTurns(10);
    expect(others).toEqual([]);
    return claimed ?? expect.fail("nothing is abandoned yet");
  }, WAIT);
}
