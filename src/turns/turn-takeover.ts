import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import type { TurnStep } from "../../gen/parley/storage/v1/turn_step_pb.js";
import type { TeamDefinition } from "../engine/team.ts";
import { Failure } from "../failure.ts";
import { continuationFor } from "./pending-input.ts";
import type { ClaimedTurn, TurnRef, TurnStore } from "./ports.ts";
import type { BegunTurn } from "./turn-execution.ts";
import { isResult, sequenceOfNewestResult } from "./turn-journal.ts";
import { sequenceOf } from "./turn-log.ts";

/** A turn that has changed its owner more often than this ends: it is likely what its owners die of. */
const MAX_TAKEOVERS = 5;

/** Entries read from the store at a time. */
const READ_LIMIT = 500;

/** Reads what is needed to go on with a turn that was taken from another owner. Rejects as the store does. */
export async function resumedTurn(
  claimed: ClaimedTurn,
  { store, teams }: { store: Pick<TurnStore, "readLog">; teams: ReadonlyMap<string, TeamDefinition> },
): Promise<BegunTurn> {
  const { lease, record, window, steps, lastSequence, usage: usedBefore, stop, takeovers } = claimed;
  const { continued, notPending } = await continuationFor(lease, { record, window, store });
  const team = continued?.team ?? teamOf(record.agentTeamJson) ?? teams.get(record.agentTeam);
  const newest = sequenceOfNewestResult(steps);
  const recent = await readTail(store, lease, sequenceBeforeNewestResult(steps));
  const tail = recent.filter((entry) => sequenceOf(entry) > newest);
  const end =
    stop ?? notPending ?? (team === undefined || takeovers > MAX_TAKEOVERS ? new Failure("TURN_LOST") : undefined);
  return {
    lease,
    record,
    window,
    team: team ?? UNKNOWN_TEAM,
    continued,
    past: { steps, lastSequence, tail, boundTokens: boundTokens(steps, tail) },
    usedBefore,
    unsettled: recent.flatMap(({ usageRecord }) => (usageRecord === undefined ? [] : [usageRecord])),
    ...(end === undefined ? {} : { end }),
  };
}

/** Where the newest finished call, or else the turn, began: what it used stands behind that. */
function sequenceBeforeNewestResult(steps: readonly TurnStep[]): bigint {
  const index = steps.findLastIndex(isResult);
  return steps.slice(0, Math.max(0, index)).findLast(isResult)?.sequence ?? 0n;
}

/** Tokens of the turn's bound that were used by the newest line of the journal that says so, and since. */
function boundTokens(steps: readonly TurnStep[], tail: readonly TurnLogEntry[]): number {
  const line = steps.findLast(({ step }) => step.case === "model" || step.case === "prepared");
  const used = line?.step.case === "model" || line?.step.case === "prepared" ? Number(line.step.value.usedTokens) : 0;
  return tail.reduce((sum, { event }) => {
    const since =
      event?.event.case === "usageRecorded" && event.sequence > (line?.sequence ?? 0n) ? event.event.value : undefined;
    if (since === undefined || since.usageSource === UsageSource.HOLD_MAXIMUM) return sum;
    return sum + (since.tokenUsage?.totalTokens ?? 0);
  }, used);
}

/** The team as the turn began with it; undefined: the record was written by a release that did not keep it. */
function teamOf(json: string): TeamDefinition | undefined {
  return json === "" ? undefined : (JSON.parse(json) as TeamDefinition);
}

/** Stands for a team that nobody knows any more: its turn only ends. */
const UNKNOWN_TEAM: TeamDefinition = {
  name: "unknown",
  kind: "single",
  agents: [{ name: "unknown", systemMessage: "", model: "", temperature: 0, contextWindowTokens: 0, tools: [] }],
  maxRounds: 1,
  maxConsecutiveAutoReply: 1,
  terminationText: "",
  callTimeoutMs: 1,
  historyMessages: 0,
};

async function readTail(
  store: Pick<TurnStore, "readLog">,
  ref: TurnRef,
  afterSequence: bigint,
): Promise<TurnLogEntry[]> {
  const entries: TurnLogEntry[] = [];
  let after = afterSequence;
  for (;;) {
    const page = await readLog(store, ref, after);
    entries.push(...page);
    const last = page.at(-1)?.event?.sequence;
    if (last === undefined || page.length < READ_LIMIT) return entries;
    after = last;
  }
}

/** Entries after a sequence, or the oldest there are. */
async function readLog(
  store: Pick<TurnStore, "readLog">,
  ref: TurnRef,
  afterSequence: bigint,
): Promise<TurnLogEntry[]> {
  try {
    return (await store.readLog(ref, afterSequence, READ_LIMIT)) ?? [];
  } catch (error) {
    if (!(error instanceof Failure) || error.reason !== "TURN_LOG_TRIMMED") throw error;
    const oldest = BigInt(error.facts.metadata?.oldest_sequence ?? 1);
    return (await store.readLog(ref, oldest - 1n, READ_LIMIT)) ?? [];
  }
}
