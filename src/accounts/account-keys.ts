/** An account's keys of money: of one slot, the account's. All but `budgets` have a TTL. Every value begins with, or has, its schema version. */
export interface MoneyKeys {
  /**
   * Begins all of them; scripts name by it `use:<period>:<start ms>:<scope>`, hash: v, spent_cost, spent_tokens,
   * held_cost, held_tokens, would_refuse.
   */
  readonly prefix: string;
  /** Hash: a budget's name (`budgets.ts`), to `<schema version> <micro USD or -> <tokens or -> <1: dry run, or 0>`. An operator's key: no TTL. */
  readonly budgets: string;
  /** Sorted set: ids of calls that are held and not started, by when the hold expires (ms). */
  readonly unstarted: string;
  /** Sorted set: ids of calls that are started, by when they count as lost (ms). */
  readonly started: string;
  /**
   * Stream, fields `v` (schema version) and `r` (UsageRecord). The id's time is that of the append, and never before the
   * row's hold.
   */
  readonly ledger: string;
  /** Prefix of `call:<id>`, hash: v, state, hold (ms), until (ms), life (ms), owner, max (UsageRecord), cost, tokens, scopes (JSON), rows (ids in the ledger). */
  readonly callPrefix: string;
}

export function moneyKeys(tenant: string): MoneyKeys {
  const prefix = `{a:${tenant}}:`;
  return {
    prefix,
    budgets: `${prefix}budgets`,
    unstarted: `${prefix}unstarted`,
    started: `${prefix}started`,
    ledger: `${prefix}ledger`,
    callPrefix: `${prefix}call:`,
  };
}

/** Sorted set: tenants whose calls may be held, by when the last of them has surely ended (ms). */
export const ACCOUNTS_KEY = "{tenants}:accounts";
