import { fromBinary, toBinary } from "@bufbuild/protobuf";
import type { Headroom } from "../../gen/parley/chat/v1/headroom_pb.js";
import { type UsageRecord, UsageRecordSchema } from "../../gen/parley/usage/v1/usage_record_pb.js";
import { Failure } from "../failure.ts";
import { isReadable } from "../store/stored-formats.ts";
import type { HoldOutcome } from "./account-store.ts";
import type { PeriodName } from "./budget-periods.ts";
import type { BudgetHit } from "./budget-refusal.ts";
import { headroomView } from "./budget-views.ts";
import type { ScopeName } from "./call-scopes.ts";
import type { Amounts } from "./usage-amounts.ts";

export function encodeRow(record: UsageRecord): Buffer {
  const bytes = toBinary(UsageRecordSchema, record);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function decodeRow(bytes: Uint8Array): UsageRecord {
  return fromBinary(UsageRecordSchema, bytes);
}

/** A row out of an entry of the ledger's stream. STORED_FORMAT_UNKNOWN: a release wrote it that is newer than the next one. */
export function decodeEntry([, version, , bytes]: readonly Buffer[]): UsageRecord {
  if (!isReadable(Number(String(version))) || bytes === undefined) throw new Failure("STORED_FORMAT_UNKNOWN");
  return decodeRow(bytes);
}

/** A script's reply that begins with a word. */
export type RawReply = readonly [state: Buffer, ...rest: (Buffer | Buffer[])[]];

/** What `parleyHold` replies. */
export type RawHoldReply = readonly [
  state: Buffer,
  nowMs: Buffer,
  holdTimeMs: Buffer,
  again: number,
  hits?: Buffer[][],
  wouldRefuse?: Buffer[][],
  budgets?: Buffer[][],
];

export interface HoldReply {
  readonly state: "held" | "refused" | "price_changed" | "unstarted" | "started" | "ended";
  readonly nowMs: number;
  readonly holdTimeMs: number;
  /** Expired holds of others may have been counted: ask again. */
  readonly again: boolean;
  readonly hits: readonly BudgetHit[];
  readonly wouldRefuse: readonly BudgetHit[];
  readonly headroom: readonly Headroom[];
}

/** STORED_FORMAT_UNKNOWN: a newer release has set a budget that binds the call. */
export function readHold(reply: RawHoldReply, wanted: Amounts): HoldReply {
  const [state, nowMs, holdTimeMs, again, hits = [], wouldRefuse = [], budgets = []] = reply;
  return {
    state: holdState(String(state)),
    nowMs: Number(String(nowMs)),
    holdTimeMs: Number(String(holdTimeMs)),
    again: again === 1,
    hits: hits.map((hit) => readHit(hit.map(String), wanted)),
    wouldRefuse: wouldRefuse.map((hit) => readHit(hit.map(String), wanted)),
    headroom: budgets.map((budget) => readHeadroom(budget.map(String))),
  };
}

function holdState(state: string): HoldReply["state"] {
  switch (state) {
    case "held":
    case "refused":
    case "price_changed":
    case "unstarted":
    case "started":
      return state;
    case "unknown_format":
      throw new Failure("STORED_FORMAT_UNKNOWN");
    default:
      return "ended";
  }
}

export function outcomeOfHold({ state, nowMs, holdTimeMs, wouldRefuse }: HoldReply): HoldOutcome {
  switch (state) {
    case "held":
    case "unstarted":
      return { state: "held", holdTimeMs, wouldRefuse };
    case "price_changed":
      return { state, nowMs };
    case "started":
      return { state, holdTimeMs };
    default:
      return { state: "ended", holdTimeMs };
  }
}

function readHit(hit: readonly string[], wanted: Amounts): BudgetHit {
  const [scope = "", period = "", unit, limit = "", spent = "", held = "", reset] = hit;
  const isMoney = unit === "micro_usd";
  return {
    scope: scope as ScopeName,
    period: period as PeriodName,
    unit: isMoney ? "micro_usd" : "tokens",
    limit: BigInt(limit),
    spent: BigInt(spent),
    held: BigInt(held),
    wanted: isMoney ? wanted.microUsd : wanted.tokens,
    resetTimeMs: Number(reset),
  };
}

function readHeadroom(budget: readonly string[]): Headroom {
  const [scope = "", , microUsd = "-", tokens = "-", spent = "", spentTokens = "", held = "", heldTokens = "", reset] =
    budget;
  const limits = {
    ...(microUsd === "-" ? {} : { limitMicroUsd: BigInt(microUsd) }),
    ...(tokens === "-" ? {} : { limitTokens: BigInt(tokens) }),
  };
  return headroomView(scope as ScopeName, limits, {
    spent: { microUsd: BigInt(spent), tokens: BigInt(spentTokens) },
    held: { microUsd: BigInt(held), tokens: BigInt(heldTokens) },
    resetTimeMs: Number(reset),
  });
}

/** What stands of a call that has its rows. */
export interface StandingRows {
  readonly state: string;
  /** As the scripts have them, for comparison. */
  readonly rowIds: string;
  readonly holdTimeMs: number;
  /** The row and its corrections; those that the ledger has lost by age are missing. */
  readonly rows: readonly UsageRecord[];
}

/** Reads `["stands", state, row ids, hold time, rows]`. */
export function readStanding([, state, rowIds, holdTimeMs, rows]: RawReply): StandingRows {
  return {
    state: String(state),
    rowIds: String(rowIds),
    holdTimeMs: Number(String(holdTimeMs)),
    rows: Array.isArray(rows) ? rows.map(decodeRow) : [],
  };
}
