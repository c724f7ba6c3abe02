import { timestampMs, timestampNow } from "@bufbuild/protobuf/wkt";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { MessageRecord } from "../../gen/parley/storage/v1/message_record_pb.js";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import type { TurnRecord } from "../../gen/parley/storage/v1/turn_record_pb.js";
import type { UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import { runTeam } from "../engine/run-team.ts";
import type { TeamDefinition } from "../engine/team.ts";
import type { TurnEnd, TurnEvent } from "../engine/turn.ts";
import { Failure, type FailureReason } from "../failure.ts";
import { sleep } from "../platform/sleep.ts";
import type { Definitions } from "./definitions.ts";
import { addPending, type Continuation, historyBefore } from "./pending-input.ts";
import type { Lease, StopReason, TurnStore, UsageTotals } from "./ports.ts";
import { type AccountPorts, createTurnAccount, type TurnAccount } from "./turn-account.ts";
import { createTurnJournal, type TurnPast } from "./turn-journal.ts";
import { createTurnLogWriter } from "./turn-log-writer.ts";
import type { CallTokens, TurnObserver } from "./turn-observer.ts";
import { TurnStopped } from "./turn-stopped.ts";
import { createTurnTally } from "./turn-tally.ts";

/** A store that fails is tried again after this many milliseconds, until the lease has run out. */
const STORE_RETRY_MS = 100;

/** A lease that is refused for these is no longer ours. */
const LEASE_IS_OVER: ReadonlySet<FailureReason> = new Set(["LEASE_LOST", "SESSION_DELETED"]);

/** Ends after which a turn's messages do not enter the history: who failed says it once more, who rolled back wants it gone. */
const LEAVES_NO_MESSAGES: ReadonlySet<FinishReason> = new Set([FinishReason.ERROR, FinishReason.ROLLED_BACK]);

export interface ExecutionPorts extends AccountPorts, Pick<Definitions, "model" | "tools"> {
  readonly store: TurnStore;
  readonly leaseMs: number;
  readonly observer: TurnObserver;
}

/** A turn that this process has the lease of. */
export interface BegunTurn {
  readonly lease: Lease;
  readonly record: TurnRecord;
  readonly window: readonly MessageRecord[];
  readonly team: TeamDefinition;
  /** What former owners have written, and used. */
  readonly past: TurnPast;
  readonly usedBefore: UsageTotals;
  /** Rows of the ledger that the log has and that may not have been charged. */
  readonly unsettled: readonly UsageRecord[];
  /** What the turn goes on with: the turns before it of a team that asked a person. */
  readonly continued?: Continuation | undefined;
  /** Why the turn is not to go on but to end, if it is. */
  readonly end?: StopReason | Failure;
}

/**
 * Works on a turn to its end and writes it. Never rejects: `lost` is aborted when the end could not be written, so that
 * another owner may. `stop` ends the work; it is aborted with `lost`.
 */
export async function executeTurn(
  turn: BegunTurn,
  { ports, stop, lost }: { ports: ExecutionPorts; stop: AbortController; lost: AbortController },
): Promise<void> {
  const { store, leaseMs, observer } = ports;
  const { lease } = turn;
  const startedMs = performance.now();
  // It may have been given up before its work began.
  const giveUp = (): void => stop.abort(lost.signal.reason);
  if (lost.signal.aborted) giveUp();
  lost.signal.addEventListener("abort", giveUp, { once: true });
  // A turn that is only to be ended goes its way as far as its journal goes, and no further.
  if (turn.end !== undefined) stop.abort(turn.end instanceof Failure ? turn.end : new TurnStopped(turn.end));
  const tally = createTurnTally({
    turnId: lease.turnId,
    message: turn.record.message,
    model: turn.team.agents[0].model,
    askTime: turn.record.createTime ?? timestampNow(),
    before: turn.usedBefore,
    boundTokensBefore: turn.past.boundTokens,
  });
  const { tenant, sessionId, turnId } = lease;
  const { userId, useCase, team, version } = turn.record;
  const account = createTurnAccount({
    ...ports,
    payer: { tenant, team, userId, useCase, sessionId, turnId, version },
    owner: lease.nonce,
    onOverHold: (call) => observer.overHold(turn, call),
    onError: (error) => observer.unsettled(turn, error),
  });
  // The lost owner may have written what a call used and not have charged it.
  for (const row of turn.unsettled) account.settle(row);
  const durably = <T>(write: () => Promise<T>): Promise<T> => {
    // Whoever gives a turn up cuts its calls: what they said of that is not to be written, the next owner makes them anew.
    lost.signal.throwIfAborted();
    return retryStore(write, { forMs: leaseMs, signal: lost.signal });
  };
  // Counted and charged when it is in the log, so that metrics, records and bills agree even of a turn that is lost.
  const recorded = (entries: readonly TurnLogEntry[]): void => {
    for (const call of entries.flatMap(tokensOf)) observer.tokensRecorded(call);
    for (const { event } of entries)
      if (event?.event.case === "guardrailTripped") observer.guardrailTripped(turn, event.event.value);
    for (const { usageRecord } of entries) if (usageRecord !== undefined) account.settle(usageRecord);
  };
  const stopFor = (reason: StopReason): void => stop.abort(new TurnStopped(reason));
  const writer = createTurnLogWriter({
    lastSequence: turn.past.lastSequence,
    lastLine: turn.past.steps.length,
    append: async (entries, steps) => {
      const reason = await durably(() => store.append(lease, entries, steps));
      if (reason === undefined) recorded(entries);
      else stopFor(reason);
      return reason === undefined;
    },
    onError: (error) => lost.abort(error),
  });
  const renewal = setInterval(() => {
    store.renewLease(lease).then(
      (reason) => {
        if (reason !== undefined) stopFor(reason);
      },
      (error: unknown) => {
        // A store that does not answer is the appends' business; a lease that is another's ends the work here.
        if (error instanceof Failure && LEASE_IS_OVER.has(error.reason)) lost.abort(error);
      },
    );
  }, leaseMs / 3);
  const journal = createTurnJournal({
    turnId: lease.turnId,
    past: turn.past,
    writer,
    tally,
    account,
    maxTokens: turn.record.maxTokens,
    continued: turn.continued,
    signal: stop.signal,
  });

  try {
    const end = await workOn(turn, { ports, journal, attempts: account, signal: stop.signal });
    lost.signal.throwIfAborted();
    const emit = (event: TurnEvent): void => {
      tally.add(event);
      writer.emit(event);
    };
    journal.close();
    const { promptTokens, completionTokens } = tally.usage;
    emit({
      case: "turnCompleted",
      value: {
        finishReason: end.finishReason,
        tokenUsage: { promptTokens, completionTokens, totalTokens: promptTokens + completionTokens },
        costMicroUsd: tally.usage.costMicroUsd,
        ...(end.termination === undefined ? {} : { termination: end.termination }),
      },
    });
    const entries = await writer.finish();
    lost.signal.throwIfAborted();
    setFailure(entries.at(-1), end.failure);
    const { record, team, continued } = turn;
    const { results } = journal;
    // What it has done is not to be done again: the question is asked on, behind the calls that were made.
    const openAfterError =
      end.finishReason === FinishReason.ERROR && results.length > 0 ? continued?.pending.questions : undefined;
    const questions = end.questions ?? openAfterError;
    const commit = tally.commit({
      entries,
      finishReason: end.finishReason,
      leavesNothing: end.leavesNothing ?? (LEAVES_NO_MESSAGES.has(end.finishReason) && openAfterError === undefined),
    });
    if (questions !== undefined) {
      const answers = openAfterError === undefined ? [...(continued?.answers.values() ?? [])] : journal.usedAnswers;
      addPending(commit, { record, team, turnId, continued, results, answers, questions });
    }
    await durably(() => store.commitTurn(lease, commit));
    recorded(entries);
    observer.turnEnded({
      turn,
      finishReason: end.finishReason,
      seconds: (performance.now() - startedMs) / 1_000,
      promptTokens,
      completionTokens,
      failure: end.failure,
    });
  } catch (error) {
    lost.abort(error);
    observer.turnLost({ turn, error: lost.signal.reason });
  } finally {
    clearInterval(renewal);
    account.settleRest();
    await account.idle();
  }
}

type Journal = ReturnType<typeof createTurnJournal>;
type WorkEnd = TurnEnd & { readonly failure?: Failure };

/** The team's work; a failure becomes an end of the turn, except where the turn itself is lost. */
async function workOn(
  turn: BegunTurn,
  {
    ports,
    journal,
    attempts,
    signal,
  }: { ports: ExecutionPorts; journal: Journal; attempts: TurnAccount; signal: AbortSignal },
): Promise<WorkEnd> {
  const { record, team, window, continued } = turn;
  const message = continued?.pending.message ?? record.message;
  const history = team.historyMessages === 0 ? [] : historyBefore(window, continued);
  const startTimeMs = record.createTime === undefined ? 0 : timestampMs(record.createTime);
  const userTexts = [record.message, ...record.approvals.map(({ comment }) => comment)];
  const input = { team, history, message, userTexts, maxTokens: record.maxTokens, startTimeMs };
  try {
    const run = () => runTeam(input, { ...journal, model: ports.model, attempts, tools: ports.tools, signal });
    const end = await ports.observer.around(turn, run);
    // Only a stop makes a team end so; why it was stopped is not the team's business.
    if (end.finishReason !== FinishReason.CANCELLED || !(signal.reason instanceof TurnStopped)) return end;
    return { finishReason: signal.reason.finishReason };
  } catch (error) {
    if (signal.reason instanceof TurnStopped) return { finishReason: signal.reason.finishReason };
    if (error === turn.end && error instanceof Failure) return { finishReason: FinishReason.ERROR, failure: error };
    signal.throwIfAborted();
    if (error instanceof Failure) return { finishReason: FinishReason.ERROR, failure: error };
    ports.observer.unexpected(turn, error);
    return { finishReason: FinishReason.ERROR, failure: new Failure("INTERNAL", {}, { cause: error }) };
  }
}

function setFailure(last: TurnLogEntry | undefined, failure: Failure | undefined): void {
  if (last === undefined || failure === undefined) return;
  last.failure = {
    $typeName: "parley.storage.v1.TurnFailure",
    reason: failure.reason,
    retryAfterMs: BigInt(Math.ceil(failure.facts.retryAfterMs ?? 0)),
    quotas: (failure.facts.quotas ?? []).map((quota) => ({ $typeName: "parley.storage.v1.QuotaHit", ...quota })),
  };
}

/** The model call whose usage an entry records, if it does. */
function tokensOf({ event }: TurnLogEntry): CallTokens[] {
  if (event?.event.case !== "usageRecorded") return [];
  const { model, tokenUsage } = event.event.value;
  return [{ model, promptTokens: tokenUsage?.promptTokens ?? 0, completionTokens: tokenUsage?.completionTokens ?? 0 }];
}

/** Repeats a write while the store does not answer. Writes under a lease are idempotent, so a lost answer does no harm. */
async function retryStore<T>(
  write: () => Promise<T>,
  { forMs, signal }: { forMs: number; signal: AbortSignal },
): Promise<T> {
  const untilMs = performance.now() + forMs;
  for (;;) {
    const startedMs = performance.now();
    try {
      return await write();
    } catch (error) {
      // By its begin: a try that this process slept through says nothing of the store now.
      const worthIt = error instanceof Failure && error.reason === "STORE_UNAVAILABLE" && startedMs < untilMs;
      if (!worthIt || signal.aborted) throw error;
      await sleep(STORE_RETRY_MS);
    }
  }
}
