import { toJson } from "@bufbuild/protobuf";
import { MessageSchema } from "../../gen/parley/chat/v1/message_pb.js";
import { SessionSchema } from "../../gen/parley/chat/v1/session_pb.js";
import { TurnSchema } from "../../gen/parley/chat/v1/turn_pb.js";
import { TurnLogEntrySchema } from "../../gen/parley/storage/v1/turn_log_pb.js";
import type { Suspicion } from "../../sidecar/anomaly-rules.ts";
import type { Rollup } from "../../sidecar/rollups.ts";
import { createRedisRollups } from "../../sidecar/rollups-redis.ts";
import { periodsOf } from "../../src/accounts/budget-periods.ts";
import { createRedisAccountStore } from "../../src/accounts/redis-account-store.ts";
import { holdTimeMsOf } from "../../src/accounts/usage-amounts.ts";
import { connectRedis } from "../../src/store/redis-connection.ts";
import { createRedisStore } from "../../src/store/redis-store.ts";
import { parseTurnId } from "../../src/turns/turn-id.ts";
import { ledgerOf } from "./ledger.ts";

/** What a release left in Redis, and what it read from it. */
export interface StoredState {
  /** Key by key, as DUMP gives it, in base64. */
  readonly keys: Readonly<Record<string, string>>;
  readonly sessionId: string;
  readonly seen: SeenState;
  /** A turn amid which the release was cut, of {@link RUNNING_REQUEST}; absent: the release had none. */
  readonly runningTurnId?: string;
  /** What sidecars had made of the ledger of {@link BOOKS_TENANT}; absent: the release had no rollups. */
  readonly books?: StoredBooks;
}

/** Whose ledger a fixture is caught amid. */
export const BOOKS_TENANT = "books";

/** The sidecar that took and applied rows of it. */
export const BOOKS_CONSUMER = "fixture";

/** A ledger of which a part is applied, a part is taken and not applied, and a part is new. */
export interface StoredBooks {
  /** When it was so: what is kept of users' histories and of anomalies is of that time. */
  readonly timeMs: number;
  /** Rows of the one batch that was applied: the ledger's first. */
  readonly appliedRows: number;
  readonly seen: SeenBooks;
}

/** What sidecars read of it, in JSON. */
export interface SeenBooks {
  readonly pending: number;
  /** By period and start, then by group. */
  readonly rollups: unknown;
  readonly costThisMonth: string;
  /** Each with the history that it is held against. */
  readonly suspicions: unknown;
  readonly anomalies: unknown;
}

/** The configuration of fixtures: whoever restores one goes on with its turn by it, or by what the turn has kept of it. */
export const FIXTURE_YAML = `
agents:
  assistant: {}
  clerk: { model: sim-tools-20x50, tools: [current_time] }
teams:
  assistant: { agent: assistant }
  office: { kind: round_robin, agents: [clerk, assistant], max_consecutive_auto_reply: 1 }
`;

/** Asks for the turn that a fixture is cut amid. */
export const RUNNING_REQUEST = {
  sessionId: "running",
  userId: "u1",
  message: "what time is it?",
  agentTeam: "office",
  useCase: "fixtures",
  idempotencyKey: "once",
} as const;

/** A session's state as the store's readers see it, in JSON; without its end of life, which depends on the day. */
export interface SeenState {
  readonly session: unknown;
  readonly messages: unknown;
  readonly turns: unknown;
  readonly logs: unknown;
}

/** Reads a session of the tenant `default`, with all turns that its history names. */
export async function readState(redisUrl: string, sessionId: string): Promise<SeenState> {
  const store = createRedisStore({ connection: connectRedis(redisUrl), ttlMs: 3_600_000, leaseMs: 10_000 });
  try {
    const ref = { tenant: "default", sessionId };
    const session = await store.getSession(ref);
    const messages = (await store.listMessages(ref, { offset: 0, limit: 100 })) ?? [];
    const turns = [...new Set(messages.map((message) => message.turnId))].flatMap((id) => parseTurnId(id) ?? []);
    const records = await Promise.all(turns.map((turn) => store.getTurn(turn)));
    const logs = await Promise.all(turns.map((turn) => store.readLog(turn, 0n, 1_000)));
    const { expireTime: _, ...view } =
      session === undefined ? {} : (toJson(SessionSchema, session) as { expireTime?: string });
    return {
      session: view,
      messages: messages.map((message) => toJson(MessageSchema, message)),
      turns: records.map((turn) => (turn === undefined ? null : toJson(TurnSchema, turn))),
      logs: logs.map((log) => (log ?? []).map((entry) => toJson(TurnLogEntrySchema, entry))),
    };
  } finally {
    await store.close();
  }
}

/** Reads what sidecars have made of the ledger of {@link BOOKS_TENANT}. */
export async function readBooks(redisUrl: string): Promise<SeenBooks> {
  const connection = connectRedis(redisUrl);
  try {
    const tenant = BOOKS_TENANT;
    const accounts = createRedisAccountStore({ connection });
    const rollups = createRedisRollups({ connection, accounts, consumer: "looking on" });
    const periods = new Map(
      (await ledgerOf(accounts, tenant)).flatMap((row) =>
        periodsOf(holdTimeMsOf(row)).map((period) => [`${period.name}:${period.startMs}`, period] as const),
      ),
    );
    const sums: Record<string, Rollup[]> = {};
    for (const [name, { name: period, startMs }] of [...periods].toSorted(byName)) {
      const groups = await Array.fromAsync(rollups.read(tenant, period, startMs));
      sums[name] = groups.toSorted((a, b) => (JSON.stringify(a.group) < JSON.stringify(b.group) ? -1 : 1));
    }
    const withHistory = async (suspicion: Suspicion) => ({
      ...suspicion,
      history: (await rollups.history(tenant, suspicion)).toSorted((a, b) => a - b),
    });
    const allWithHistory = async (all: readonly Suspicion[]) => {
      const known = await Promise.all(all.map(withHistory));
      return known.toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
    };
    return inJson({
      pending: (await rollups.standing(tenant)).pending,
      rollups: sums,
      costThisMonth: String(await rollups.costThisMonth(tenant)),
      suspicions: await allWithHistory(await rollups.suspicions(tenant)),
      anomalies: await allWithHistory(await rollups.anomalies(tenant)),
    });
  } finally {
    await connection.close();
  }
}

function byName([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number {
  return a < b ? -1 : 1;
}

function inJson(seen: SeenBooks): SeenBooks {
  const text = JSON.stringify(seen, (_, value: unknown) => (typeof value === "bigint" ? String(value) : value));
  return JSON.parse(text) as SeenBooks;
}
