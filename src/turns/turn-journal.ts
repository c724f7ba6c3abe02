import { create } from "@bufbuild/protobuf";
import type { PersonAnswer } from "../../gen/parley/storage/v1/pending_input_pb.js";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import {
  type CallPrepared,
  CallPreparedSchema,
  type ToolCallFinished,
  type TurnStep,
  TurnStepSchema,
} from "../../gen/parley/storage/v1/turn_step_pb.js";
import type { UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import type { CallStep, TurnEvent, TurnPorts } from "../engine/turn.ts";
import { Failure } from "../failure.ts";
import type { Continuation } from "./pending-input.ts";
import type { TurnAccount } from "./turn-account.ts";
import { sequenceOf } from "./turn-log.ts";
import type { TurnLogWriter } from "./turn-log-writer.ts";
import { TurnStopped } from "./turn-stopped.ts";
import type { TurnTally } from "./turn-tally.ts";

/** What a former owner has written of a turn. */
export interface TurnPast {
  readonly steps: readonly TurnStep[];
  /** Sequence of the newest entry in the log. */
  readonly lastSequence: bigint;
  /** The log's entries behind the newest finished call. */
  readonly tail: readonly TurnLogEntry[];
  /** Tokens that count against the turn's bound. */
  readonly boundTokens: number;
}

/** The past of a turn that has just begun: its log has turn_started. */
export const NO_PAST: TurnPast = { steps: [], lastSequence: 1n, tail: [], boundTokens: 0 };

/** Sequence of the newest entry that the newest finished call, or else the turn's begin, has written. */
export function sequenceOfNewestResult(steps: readonly TurnStep[]): bigint {
  const newest = steps.findLast(isResult);
  return newest?.sequence ?? 1n;
}

/** A living owner that has lost its lease has aborted its call and settled it within this time, in milliseconds. */
const OWNER_SETTLES_MS = 500;

/**
 * The part of a team's ports that makes a turn survive its owner. A new owner runs the team anew. Calls that have ended are
 * not made: what came of them stands in the journal, and what was said of them in the log. Between two calls a team says
 * the same as it did before, in the same order, so that events are dropped by number as far as the log has them. Behind
 * that the turn is live: a call that was cut is restarted, text that it left is void.
 *
 * INTERNAL: the team does not go the way that the journal says it went.
 */
export function createTurnJournal({
  turnId,
  past,
  writer,
  tally,
  account,
  maxTokens,
  continued,
  signal,
}: {
  turnId: string;
  past: TurnPast;
  writer: Pick<TurnLogWriter, "emit" | "record" | "flushed">;
  tally: TurnTally;
  account: Pick<TurnAccount, "beginCall" | "loseCall" | "takeRow">;
  maxTokens: number;
  /** What the turn goes on with, if it does. */
  continued?: Continuation | undefined;
  signal: AbortSignal;
}): Omit<TurnPorts, "model" | "attempts" | "tools" | "signal"> & {
  /** The team has ended: text of a call that was cut, and that it did not make again, is void. */
  close(): void;
  /** What came of the turn's own calls so far, former owners' included. */
  readonly results: readonly TurnStep[];
  /** What a person has answered and results depend on. */
  readonly usedAnswers: readonly PersonAnswer[];
} {
  const lines = linesByCall(past.steps);
  const lastFinished = Math.max(0, ...past.steps.filter(isResult).map(({ call }) => call));
  let calls = 0;
  let messages = 0;
  let toolCalls = 0;
  /** Sequence of the newest entry that is known to be in the log, as the team goes its way again. */
  let position = 1n;
  let live = false;
  /** Tokens that were used when the newest call so far had ended. */
  let usedTokens = 0;

  /** Results of the turns that this one goes on with, which are still to be handed back; their events are in their logs. */
  const former = [...(continued?.pending.results ?? [])];
  let continues = continued !== undefined;
  /** The newest events that former turns may have: who spoke, and which tool was being called. */
  let agentStarted: TurnEvent | undefined;
  let toolCallStarted: TurnEvent | undefined;
  const idTag = idTagOf(turnId, continued);
  const results: TurnStep[] = [];
  const askedFor = new Map<string, PersonAnswer>();
  const usedAnswers = new Map(continued?.pending.answers.map((answer) => [answer.questionId, answer]));
  const formerResult = <Case extends "model" | "tool">(kind: Case) => {
    const done = former.shift();
    if (done?.step.case !== kind) throw strayed();
    return done.step.value as Extract<TurnStep["step"], { case: Case }>["value"];
  };
  const keep = (call: number, step: TurnStep["step"]): void => {
    results.push(create(TurnStepSchema, { call, step }));
    // A result that is kept is one of a team that had these answers.
    for (const [id, answer] of askedFor) usedAnswers.set(id, answer);
  };
  /** Where the turn leaves the way of the turns before it: a turn that failed may have gone past all that was asked. */
  const goOn = ({ agent }: { agent: string | undefined }): void => {
    continues = false;
    if (agentStarted?.case === "agentStarted" && agentStarted.value.agent === agent) emit(agentStarted);
  };

  const emit = (event: TurnEvent): void => {
    // What the user says is checked before the team goes its former way; what agents say of that was checked as it was said.
    if (continues && event.case !== "guardrailTripped") {
      if (event.case === "agentStarted") agentStarted = event;
      if (event.case === "toolCallStarted") toolCallStarted = event;
      return;
    }
    if (!live && position < past.lastSequence && calls >= lastFinished) {
      position++;
      return;
    }
    if (!live && calls < lastFinished) return;
    write(event, event.case === "usageRecorded" ? account.takeRow() : undefined);
  };
  const write = (event: TurnEvent, row: UsageRecord | undefined): void => {
    if (event.case === "usageRecorded" && row !== undefined) event.value.costMicroUsd = row.costMicroUsd;
    tally.add(event);
    writer.emit(event, row);
  };
  /** Charges what lost owners' attempts at a call used and no log has. */
  const loseCall = async (call: number, step: CallStep, { graceMs }: { graceMs: number }): Promise<void> => {
    const logged = new Set(past.tail.map(({ usageRecord }) => usageRecord?.recordId));
    for (let attempt = 1; attempt <= formerAttempts(call); attempt++) {
      for (const row of await account.loseCall(callId(call, attempt), { graceMs })) {
        if (!logged.has(row.recordId)) write(usageEvent(step.agent, row), row);
      }
    }
  };
  /** Where the team begins to do what no owner has done. Returns what a lost owner's call had said. */
  const goLive = (): string => {
    if (live) return "";
    live = true;
    const cutText = textSaid(past.tail.filter((entry) => sequenceOf(entry) > position));
    if (cutText !== "") tally.addCut(cutText);
    return cutText;
  };
  const makeVoid = (cutText: string): void => {
    if (cutText !== "") writer.emit({ case: "stepRestarted", value: { discardTextAfterSequence: position } });
  };
  const replayed = <Case extends "model" | "tool">(kind: Case, call: number) => {
    const done = lines.get(call)?.find(isResult);
    if (done === undefined) return undefined;
    if (done.step.case !== kind) throw strayed();
    position = done.sequence;
    keep(call, done.step);
    return done.step.value as Extract<TurnStep["step"], { case: Case }>["value"];
  };
  const prepared = ({ agent, name }: CallStep): CallPrepared =>
    create(CallPreparedSchema, { agent, name, usedTokens: BigInt(tally.boundTokens) });
  const callId = (call: number, attempt: number): string => `${turnId}/${call}/${attempt}`;
  /** Attempts of former owners. The first attempt at a turn's first call is prepared by the turn's begin. */
  const formerAttempts = (call: number): number =>
    (lines.get(call)?.filter(({ step }) => step.case === "prepared").length ?? 0) +
    (call === 1 && past !== NO_PAST ? 1 : 0);

  return {
    emit,

    async modelStep(step, run) {
      if (continues && former.length > 0) return formerResult("model");
      if (continues) goOn(step);
      const call = ++calls;
      const before = replayed("model", call);
      if (before !== undefined) {
        usedTokens = Number(before.usedTokens);
        // What has no message was said to nobody: a selector's choice.
        if (before.messageId !== "") {
          messages++;
          tally.addSpoken({ ...before, agent: step.agent, timeMs: Number(before.timeMs) });
        }
        return before;
      }
      const wasLive = live;
      const usedBefore = tally.boundTokens;
      const cutText = goLive();
      // What was said of a turn that is not to go on stays.
      const throwIfOver = async (): Promise<void> => {
        if (signal.reason instanceof TurnStopped) {
          if (cutText !== "") await run({ id: callId(call, formerAttempts(call)), cutText, isOver: true });
          // The owner of a turn that was taken from it to be ended may be alive, and know what its call used.
          if (!wasLive) await loseCall(call, step, { graceMs: OWNER_SETTLES_MS });
        }
        signal.throwIfAborted();
      };
      await throwIfOver();
      const attempt = formerAttempts(call) + 1;
      if (call > 1 || attempt > 1) {
        writer.record(call, { case: "prepared", value: prepared(step) });
        await writer.flushed().catch((error: unknown) => throwIfOver().then(() => Promise.reject(error)));
        await throwIfOver();
      }
      makeVoid(cutText);
      if (!wasLive) await loseCall(call, step, { graceMs: 0 });
      account.beginCall(callId(call, attempt), step.agent);
      const result = await run({ id: callId(call, attempt), cutText: "", isOver: false });
      result.usedTokens = BigInt(tally.boundTokens);
      result.callTokens = BigInt(tally.boundTokens - usedBefore);
      writer.record(call, { case: "model", value: result });
      keep(call, { case: "model", value: result });
      return result;
    },

    async toolStep(step, { run, unknown }) {
      if (continues && former.length > 0) return formerResult("tool");
      if (continues) {
        goOn(step);
        if (toolCallStarted !== undefined) emit(toolCallStarted);
      }
      const call = ++calls;
      const before = replayed("tool", call);
      if (before !== undefined) return before;
      makeVoid(goLive());
      const started = lines.get(call)?.find(({ step: { case: kind } }) => kind === "started")?.step.value;
      const wasStarted = started !== undefined;
      // What its server says of a tool may be known to the owner that is lost, and not here yet.
      const mayRepeat =
        step.idempotent || (started?.$typeName === "parley.storage.v1.CallStarted" && started.idempotent);
      const finish = (result: ToolCallFinished): ToolCallFinished => {
        writer.record(call, { case: "tool", value: result });
        keep(call, { case: "tool", value: result });
        return result;
      };
      if (wasStarted && (!mayRepeat || signal.aborted)) return finish(unknown());
      signal.throwIfAborted();
      if (lines.get(call) === undefined) {
        writer.record(call, { case: "prepared", value: prepared(step) });
        await writer.flushed();
      }
      if (!wasStarted) {
        const { idempotent } = step;
        writer.record(call, { case: "started", value: { $typeName: "parley.storage.v1.CallStarted", idempotent } });
      }
      await writer.flushed();
      signal.throwIfAborted();
      return finish(await run({ id: callId(call, 1) }));
    },

    answerTo({ id, agent }) {
      const answer = continued?.answers.get(id);
      // Where the former turn stopped: from here on the team does what none of its turns has done.
      if (continues && (answer === undefined || continued?.fresh.has(id))) {
        if (former.length > 0) throw strayed();
        goOn({ agent });
      }
      if (answer !== undefined) askedFor.set(id, answer);
      return answer;
    },

    close: () => makeVoid(goLive()),
    results,
    get usedAnswers() {
      return [...usedAnswers.values()];
    },
    newMessageId: () => `${turnId}.${++messages}`,
    newToolCallId: (modelsId) => `${modelsId || "call"}${idTag}-${++toolCalls}`,
    tokensLeft: () => maxTokens - (live || calls >= lastFinished ? tally.boundTokens : usedTokens),
  };
}

/**
 * What makes ids of calls and questions this conversation's own, and the same in all of its turns: models number their calls anew
 * each time, or not at all, and an answer that comes late must not be one to what is asked next.
 */
function idTagOf(turnId: string, continued: Continuation | undefined): string {
  const [first = turnId] = continued?.pending.turnIds ?? [];
  const tag = `-${first.slice(first.lastIndexOf(".") + 1)}`;
  // What 0.6.0 has asked has none.
  return continued?.pending.questions.every((id) => id.includes(tag)) === false ? "" : tag;
}

/** A call as the log tells of it. */
function usageEvent(agent: string, { model, promptTokens, completionTokens, usageSource }: UsageRecord): TurnEvent {
  const [prompt, completion] = [Number(promptTokens), Number(completionTokens)];
  const tokenUsage = { promptTokens: prompt, completionTokens: completion, totalTokens: prompt + completion };
  return { case: "usageRecorded", value: { agent, model, tokenUsage, usageSource } };
}

function linesByCall(steps: readonly TurnStep[]): ReadonlyMap<number, readonly TurnStep[]> {
  return Map.groupBy(steps, ({ call }) => call);
}

/** Whether a line is what came of a call. */
export function isResult({ step }: TurnStep): boolean {
  return step.case === "model" || step.case === "tool";
}

/** The text that was said last and not voided. */
function textSaid(entries: readonly TurnLogEntry[]): string {
  let text = "";
  for (const { event } of entries) {
    if (event?.event.case === "textDelta") text += event.event.value.text;
    else if (event?.event.case === "stepRestarted" || event?.event.case === "messageCompleted") text = "";
  }
  return text;
}

function strayed(): Failure {
  return new Failure("INTERNAL", {}, { cause: new Error("the team strayed from its journal") });
}
