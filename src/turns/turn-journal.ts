import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import type { ToolCallFinished, TurnStep } from "../../gen/parley/storage/v1/turn_step_pb.js";
import type { TurnEvent, TurnPorts } from "../engine/turn.ts";
import { Failure } from "../failure.ts";
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
}

/** The past of a turn that has just begun: its log has turn_started. */
export const NO_PAST: TurnPast = { steps: [], lastSequence: 1n, tail: [] };

/** Sequence of the newest entry that the newest finished call, or else the turn's begin, has written. */
export function sequenceOfNewestResult(steps: readonly TurnStep[]): bigint {
  const newest = steps.findLast(({ step }) => step.case === "model" || step.case === "tool");
  return newest?.sequence ?? 1n;
}

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
  maxTokens,
  signal,
}: {
  turnId: string;
  past: TurnPast;
  writer: Pick<TurnLogWriter, "emit" | "record" | "flushed">;
  tally: TurnTally;
  maxTokens: number;
  signal: AbortSignal;
}): Omit<TurnPorts, "model" | "tools" | "signal"> & {
  /** The team has ended: text of a call that was cut, and that it did not make again, is void. */
  close(): void;
} {
  const lines = linesByCall(past.steps);
  const lastFinished = Math.max(0, ...past.steps.filter(isFinished).map(({ call }) => call));
  let calls = 0;
  let messages = 0;
  let toolCalls = 0;
  /** Sequence of the newest entry that is known to be in the log, as the team goes its way again. */
  let position = 1n;
  let live = false;
  /** Tokens that were used when the newest call so far had ended. */
  let usedTokens = 0;

  const emit = (event: TurnEvent): void => {
    if (!live && position < past.lastSequence && calls >= lastFinished) {
      position++;
      return;
    }
    if (!live && calls < lastFinished) return;
    tally.add(event);
    writer.emit(event);
  };
  /** Where the team begins to do what no owner has done. Returns what a lost owner's call had said. */
  const goLive = (): string => {
    if (live) return "";
    live = true;
    return textSaid(past.tail.filter((entry) => sequenceOf(entry) > position));
  };
  const makeVoid = (cutText: string): void => {
    if (cutText !== "") writer.emit({ case: "stepRestarted", value: { discardTextAfterSequence: position } });
  };
  const replayed = <Case extends "model" | "tool">(kind: Case, call: number) => {
    const done = lines.get(call)?.find(isFinished);
    if (done === undefined) return undefined;
    if (done.step.case !== kind) throw strayed();
    position = done.sequence;
    return done.step.value as Extract<TurnStep["step"], { case: Case }>["value"];
  };
  const callId = (call: number, attempt: number): string => `${turnId}/${call}/${attempt}`;
  const attemptsOf = (call: number): number =>
    lines.get(call)?.filter(({ step }) => step.case === "prepared").length ?? 0;

  return {
    emit,

    async modelStep(step, run) {
      const call = ++calls;
      const before = replayed("model", call);
      if (before !== undefined) {
        usedTokens = Number(before.usedTokens);
        if (before.messageId !== "") messages++;
        tally.addSpoken({ ...before, agent: step.agent, timeMs: Number(before.timeMs) });
        return before;
      }
      const cutText = goLive();
      // What was said of a turn that is not to go on stays.
      const throwIfOver = async (): Promise<void> => {
        if (signal.reason instanceof TurnStopped && cutText !== "") {
          await run({ id: callId(call, attemptsOf(call)), cutText, isOver: true });
        }
        signal.throwIfAborted();
      };
      await throwIfOver();
      // The first attempt at a turn's first call is prepared by the turn's begin.
      const attempt = attemptsOf(call) + (call === 1 && past !== NO_PAST ? 2 : 1);
      if (call > 1 || attempt > 1) {
        writer.record(call, { case: "prepared", value: prepared(step) });
        await writer.flushed().catch((error: unknown) => throwIfOver().then(() => Promise.reject(error)));
        await throwIfOver();
      }
      // In one write with the usage of the attempt that is void.
      makeVoid(cutText);
      const result = await run({ id: callId(call, attempt), cutText, isOver: false });
      result.usedTokens = BigInt(used(tally));
      writer.record(call, { case: "model", value: result });
      return result;
    },

    async toolStep(step, { run, unknown }) {
      const call = ++calls;
      const before = replayed("tool", call);
      if (before !== undefined) return before;
      makeVoid(goLive());
      const wasStarted = lines.get(call)?.some(({ step: { case: kind } }) => kind === "started") ?? false;
      const finish = (result: ToolCallFinished): ToolCallFinished => {
        writer.record(call, { case: "tool", value: result });
        return result;
      };
      if (wasStarted && (!step.idempotent || signal.aborted)) return finish(unknown());
      signal.throwIfAborted();
      if (attemptsOf(call) === 0) {
        writer.record(call, { case: "prepared", value: prepared(step) });
        await writer.flushed();
      }
      if (!wasStarted) writer.record(call, { case: "started", value: { $typeName: "parley.storage.v1.CallStarted" } });
      await writer.flushed();
      signal.throwIfAborted();
      return finish(await run({ id: callId(call, 1) }));
    },

    close: () => makeVoid(goLive()),
    newMessageId: () => `${turnId}.${++messages}`,
    newToolCallId: (modelsId) => `${modelsId || "call"}-${++toolCalls}`,
    tokensLeft: () => maxTokens - (live || calls >= lastFinished ? used(tally) : usedTokens),
  };
}

function used({ usage }: TurnTally): number {
  return usage.promptTokens + usage.completionTokens;
}

function prepared({ agent, name }: { agent: string; name: string }) {
  return { $typeName: "parley.storage.v1.CallPrepared", agent, name } as const;
}

function linesByCall(steps: readonly TurnStep[]): ReadonlyMap<number, readonly TurnStep[]> {
  return Map.groupBy(steps, ({ call }) => call);
}

function isFinished({ step }: TurnStep): boolean {
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
