import { setTimeout as sleep } from "node:timers/promises";
import type { AccountStore } from "../../src/accounts/account-store.ts";
import { createLogHub } from "../../src/store/log-hub.ts";
import { REDIS_SCRIPTS } from "../../src/store/redis-scripts.ts";
import { REFUSED } from "../../src/store/script-parts.ts";
import type { BeginOutcome, ClaimedTurn, Lease, Store } from "../../src/turns/ports.ts";
import { writeRecord } from "./record.ts";

/** Defects that replicas of the soak can be given, to show that the soak finds them. */
export const DEFECTS = {
  "no-fencing": "writes are accepted from owners whose lease is another's",
  "append-not-awaited": "events are delivered before they are durable",
  "no-deduplication": "claims of idempotency keys are ignored",
  "caps-unheeded": "holds are made whatever the budgets say",
  "charges-twice": "a call that was charged is charged once more",
  "no-journal": "whoever takes a turn over is not told which of its calls have ended",
} as const;

export type Defect = keyof typeof DEFECTS;

export function isDefect(name: string): name is Defect {
  return name in DEFECTS;
}

/** Lets the scripts accept every write. To be called before a store connects. */
export function switchFencingOff(): void {
  const unfenced = REFUSED.replace("if held[1] == turn", "do return nil end\n  if held[1] == turn");
  for (const [name, script] of Object.entries(REDIS_SCRIPTS)) {
    if (script.lua.includes(REFUSED)) Object.assign(script, { lua: script.lua.replace(REFUSED, () => unfenced) });
    else if (/^parley(Append|CommitTurn)$/.test(name)) throw new Error("the scripts are not fenced as they were");
  }
}

/** The store with a defect. */
export function withDefect(store: Store, defect: Defect | undefined): Store {
  switch (defect) {
    case "append-not-awaited":
      return withoutAwaiting(store);
    case "no-deduplication":
      return {
        ...store,
        claimKey: async ({ turnId, requestHash }) => ({ turnId, requestHash, state: "new" }),
      };
    case "no-journal": {
      const forgetful = (turn: ClaimedTurn): ClaimedTurn => ({ ...turn, steps: [] });
      return {
        ...store,
        claimTurns: async (limit) => (await store.claimTurns(limit)).map(forgetful),
      };
    }
    default:
      return store;
  }
}

/** Accounts with a defect. */
export function withAccountDefect(accounts: AccountStore, defect: Defect | undefined): AccountStore {
  if (defect !== "charges-twice") return accounts;
  return {
    ...accounts,
    async settle(record) {
      await accounts.settle({ ...record, recordId: `${record.recordId}-again` });
      return await accounts.settle(record);
    },
  };
}

/** The store writes this much later than it says, in milliseconds: as long as a slow disk takes. */
const WRITE_DELAY_MS = 200;

function withoutAwaiting(store: Store): Store {
  const hub = createLogHub();
  let writing: Promise<unknown> = Promise.resolve();
  return {
    ...store,
    async append(lease, entries, steps) {
      hub.publish(lease, entries);
      // Each write is late by as much; they do not wait for each other's delays.
      const due = sleep(WRITE_DELAY_MS);
      writing = writing.then(() => due).then(() => store.append(lease, entries, steps).catch(() => 0));
      return undefined;
    },
    async commitTurn(lease, commit) {
      await writing;
      await store.commitTurn(lease, commit);
    },
    follow(ref, onEntries, options) {
      const unfollow = [hub.follow(ref, onEntries), store.follow(ref, onEntries, options)];
      return () => {
        for (const stop of unfollow) stop();
      };
    },
  };
}

/** The store, writing down which turns it hands out. */
export function withRecord(store: Store, { file, replica }: { file: string; replica: number }): Store {
  // As of before the store was asked: an owner may stand still before it learns that it is one.
  const owned = ({ turnId, epoch }: Lease, line: { atMs: number; takeover: boolean }): void =>
    writeRecord(file, { kind: "owner", turnId, epoch, replica, ...line });
  return {
    ...store,
    async beginTurn(turn): Promise<BeginOutcome> {
      const atMs = Date.now();
      const outcome = await store.beginTurn(turn);
      if (outcome.state === "begun") owned(outcome.lease, { atMs, takeover: false });
      if (outcome.state === "preempted") owned(outcome.running.lease, { atMs, takeover: true });
      return outcome;
    },
    async claimTurns(limit) {
      const atMs = Date.now();
      const claimed = await store.claimTurns(limit);
      for (const { lease } of claimed) owned(lease, { atMs, takeover: true });
      return claimed;
    },
  };
}
