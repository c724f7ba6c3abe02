import { createHash } from "node:crypto";
import { moneyKeys } from "../src/accounts/account-keys.ts";
import { type AccountStore, LEDGER_MS } from "../src/accounts/account-store.ts";
import { BUDGET_PERIODS, type PeriodName, periodOf } from "../src/accounts/budget-periods.ts";
import { decodeEntry } from "../src/accounts/redis-account-replies.ts";
import { holdTimeMsOf } from "../src/accounts/usage-amounts.ts";
import { Failure } from "../src/failure.ts";
import type { RedisConnection } from "../src/store/redis-connection.ts";
import { isReadable } from "../src/store/stored-formats.ts";
import { type AnomalyKind, historyBefore, type Subject, type Suspicion, WATCH_MS } from "./anomaly-rules.ts";
import {
  amountsOfRow,
  anomalyName,
  callIdOf,
  decodeGroup,
  encodeGroup,
  type LedgerEntry,
  MOST_ANOMALIES,
  ROLLUP_AMOUNTS,
  ROLLUP_RETENTION_MS,
  type Rollup,
  type RollupAmounts,
  type Rollups,
  suspicionName,
} from "./rollups.ts";
import { ROLLUP_GROUP, ROLLUP_KEYS, ROLLUP_SCRIPTS, SUSPICION_FORMAT } from "./rollups-scripts.ts";

/**
 * A row that was given out and is not applied after this long is given to another sidecar, in milliseconds: well above a
 * batch on a slow machine, well below the lag that anybody is woken for.
 */
const CLAIM_AFTER_MS = 5_000;

/** A consumer that has nothing to do and was not heard of for this long is forgotten, in milliseconds. */
const CONSUMER_IDLE_MS = 3_600_000;

/** Fields of a rollup that one step of a scan reads, about. */
const SCAN_FIELDS = 500;

/** Rollups on one Redis or a Redis Cluster, 7.0 or newer. Rows are given out by a consumer group of the ledger's stream. */
export function createRedisRollups({
  connection,
  accounts,
  consumer,
  claimAfterMs = CLAIM_AFTER_MS,
}: {
  connection: RedisConnection;
  accounts: Pick<AccountStore, "tenants">;
  /** A name that no other sidecar has, now or before. */
  consumer: string;
  claimAfterMs?: number;
}): Rollups {
  const run = connection.scripts(ROLLUP_SCRIPTS);
  const seen = new Set<string>();

  return {
    tenants: () => accounts.tenants(),

    async take(tenant, limit) {
      const { ledger } = moneyKeys(tenant);
      if (!seen.has(tenant)) {
        seen.add(tenant);
        await run("parleyForgetConsumers", [ledger], [ROLLUP_GROUP, "", CONSUMER_IDLE_MS]);
      }
      const reply = (await run("parleyTakeRows", [ledger], [ROLLUP_GROUP, consumer, claimAfterMs, limit])) as [
        id: Buffer,
        fields: Buffer[],
      ][];
      return reply.flatMap(([id, fields]) => readEntry(String(id), fields));
    },

    async apply(tenant, entries) {
      if (entries.length === 0) return { entries: [], suspicious: false };
      const { prefix, ledger } = moneyKeys(tenant);
      // The same rows again are the same batch: whoever had no answer gets the one that was given.
      const token = createHash("sha1")
        .update(entries.map(({ id }) => id).join())
        .digest("hex");
      const reply = (await run(
        "parleyApplyRows",
        [ledger, `${prefix}${ROLLUP_KEYS.batch}${consumer}`, suspicionsKey(tenant)],
        [prefix, ROLLUP_GROUP, token, JSON.stringify(batchOf(prefix, entries))],
      )) as [isNew: Buffer, suspicious: Buffer] | null;
      if (reply === null) throw new Failure("STORED_FORMAT_UNKNOWN");
      const [isNew, suspicious] = reply.map(String) as [string, string];
      return { entries: entries.filter((_, index) => isNew[index] === "1"), suspicious: suspicious === "1" };
    },

    async standing(tenant) {
      const reply = (await run("parleyLedgerStanding", [moneyKeys(tenant).ledger], [ROLLUP_GROUP])) as Buffer[];
      return { pending: Number(String(reply[0])), lagMs: Number(String(reply[1])) };
    },

    async *read(tenant, period, startMs) {
      const key = rollupKey(moneyKeys(tenant).prefix, period, startMs);
      // A scan may say a field twice.
      const told = new Set<string>();
      let cursor = "0";
      do {
        const at = cursor;
        const [next, fields] = await connection.use((client) => client.hscan(key, at, "COUNT", SCAN_FIELDS));
        cursor = next;
        for (let index = 0; index + 1 < fields.length; index += 2) {
          const field = fields[index] ?? ALL;
          if (field === ALL || told.has(field)) continue;
          told.add(field);
          yield { group: decodeGroup(field), ...decodeAmounts(fields[index + 1] ?? "") } satisfies Rollup;
        }
      } while (cursor !== "0");
    },

    async costThisMonth(tenant) {
      const { ledger, prefix } = moneyKeys(tenant);
      const reply = await run("parleyRollupOfMonth", [ledger], [`${prefix}rollup:month:`]);
      return reply === null ? 0n : decodeAmounts(String(reply)).costMicroUsd;
    },

    async history(tenant, { kind, subject, at }) {
      const { prefix } = moneyKeys(tenant);
      if (kind === "prompt_growth") return [];
      const key = `${prefix}${ROLLUP_KEYS.watch}${kind === "call_loop" ? "turns" : subject.scope}:${subject.id}`;
      const fields = await connection.use((client) => client.hgetall(key));
      const values = new Map(Object.entries(fields).map(([field, value]) => [field, Number(value)]));
      values.delete("growth");
      if (kind === "token_burst") {
        return historyBefore(new Map([...values].map(([field, tokens]) => [Number(field), tokens])), Number(at));
      }
      values.delete(at);
      return [...values.values()];
    },

    async suspicions(tenant) {
      const key = suspicionsKey(tenant);
      const all = await connection.use((client) => client.hvals(key));
      return all.flatMap(readSuspicion);
    },

    async judge(tenant, suspicion, isAnomaly) {
      const reply = await run(
        "parleyJudge",
        [suspicionsKey(tenant), anomaliesKey(tenant)],
        [
          suspicionName(suspicion),
          String(suspicion.value),
          isAnomaly ? anomalyName(suspicion) : "",
          WATCH_MS.open,
          MOST_ANOMALIES,
        ],
      );
      return reply === 1;
    },

    async anomalies(tenant) {
      const open = (await run("parleyListAnomalies", [anomaliesKey(tenant)], [WATCH_MS.open])) as Buffer[];
      return open.map(String).flatMap((stored) => {
        const blank = stored.indexOf(" ");
        const openTimeMs = Number(stored.slice(0, blank));
        return readSuspicion(stored.slice(blank + 1)).map((suspicion) => ({ ...suspicion, openTimeMs }));
      });
    },

    async leave() {
      for (const tenant of seen) {
        await run("parleyForgetConsumers", [moneyKeys(tenant).ledger], [ROLLUP_GROUP, consumer, CONSUMER_IDLE_MS]);
      }
    },
  };
}

/** Field of a rollup that sums all the others. */
const ALL = "all";

function suspicionsKey(tenant: string): string {
  return `${moneyKeys(tenant).prefix}suspicions`;
}

function anomaliesKey(tenant: string): string {
  return `${moneyKeys(tenant).prefix}anomalies`;
}

/** A suspicion as scripts and keys have it. */
type RawSuspicion = [
  format: number,
  kind: AnomalyKind,
  scope: Subject["scope"],
  id: string,
  sessionId: string,
  at: string,
  value: string,
];

/** What a newer release suspects is left to its sidecars. */
function readSuspicion(stored: string): Suspicion[] {
  const [format, kind, scope, id, sessionId, at, value] = JSON.parse(stored) as RawSuspicion;
  if (format !== SUSPICION_FORMAT) return [];
  return [{ kind, subject: { scope, id }, sessionId, at, value: Number(value) }];
}

function rollupKey(prefix: string, period: PeriodName, startMs: number): string {
  return `${prefix}rollup:${period}:${startMs}`;
}

/** A row that a newer release wrote is nobody's of this one, and its account goes on without it: it shows in the lag. */
function readEntry(id: string, fields: readonly Buffer[]): LedgerEntry[] {
  try {
    return [{ id, row: decodeEntry(fields) }];
  } catch {
    return [];
  }
}

/** What `parleyApplyRows` takes. */
function batchOf(prefix: string, entries: readonly LedgerEntry[]) {
  const spans = new Numbered();
  const groups = new Numbered();
  const users = new Numbered();
  const sessions = new Numbered();
  const expiries: number[] = [];
  const rows = entries.map(({ id, row }) => {
    const holdTimeMs = holdTimeMsOf(row);
    const at = BUDGET_PERIODS.map(({ name }) => {
      const { startMs, endMs } = periodOf(name, holdTimeMs);
      const number = spans.numberOf(rollupKey(prefix, name, startMs));
      expiries[number - 1] = endMs + ROLLUP_RETENTION_MS[name];
      return number;
    });
    const month = periodOf("month", holdTimeMs);
    const price = row.priceVersion === "" ? 0 : row.correctsRecordId === "" ? 1 : 2;
    const amounts = amountsOfRow(row);
    const counts = ROLLUP_AMOUNTS.flatMap((name) => (name === "unpricedTokens" ? [] : halvesOf(amounts[name])));
    return [
      id,
      `${prefix}${ROLLUP_KEYS.unpriced}${month.startMs}`,
      month.endMs + LEDGER_MS,
      callIdOf(row),
      price,
      at,
      groups.numberOf(encodeGroup(row)),
      counts,
      users.numberOf(row.userId),
      sessions.numberOf(row.sessionId),
      row.turnId,
      Math.floor(holdTimeMs / WATCH_MS.bucket) * WATCH_MS.bucket,
    ];
  });
  const all = spans.names().map((key, index) => [key, expiries[index]]);
  return [all, groups.names(), rows, users.names(), sessions.names()];
}

/** Names with numbers from 1 on. */
class Numbered {
  readonly #numbers = new Map<string, number>();

  numberOf(name: string): number {
    const number = this.#numbers.get(name) ?? this.#numbers.size + 1;
    this.#numbers.set(name, number);
    return number;
  }

  names(): string[] {
    return [...this.#numbers.keys()];
  }
}

/** Scripts count in doubles: a number is `high * 1e10 + low`. */
const HALF = 10_000_000_000n;

function halvesOf(amount: bigint): [high: number, low: number] {
  return [Number(amount / HALF), Number(amount % HALF)];
}

function decodeAmounts(stored: string): RollupAmounts {
  const [format, calls, prompt, cached, completion, reasoning, cost, unpriced] = stored.split(" ");
  if (!isReadable(Number(format)) || unpriced === undefined) throw new Failure("STORED_FORMAT_UNKNOWN");
  return {
    calls: BigInt(calls ?? 0),
    promptTokens: BigInt(prompt ?? 0),
    cachedPromptTokens: BigInt(cached ?? 0),
    completionTokens: BigInt(completion ?? 0),
    reasoningTokens: BigInt(reasoning ?? 0),
    costMicroUsd: BigInt(cost ?? 0),
    unpricedTokens: BigInt(unpriced),
  };
}
