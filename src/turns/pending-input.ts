import { create } from "@bufbuild/protobuf";
import type { MessageRecord } from "../../gen/parley/storage/v1/message_record_pb.js";
import {
  type PendingInput,
  PendingInputSchema,
  type PersonAnswer,
  PersonAnswerSchema,
} from "../../gen/parley/storage/v1/pending_input_pb.js";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import type { TurnRecord } from "../../gen/parley/storage/v1/turn_record_pb.js";
import type { TurnStep } from "../../gen/parley/storage/v1/turn_step_pb.js";
import type { TeamDefinition } from "../engine/team.ts";
import { Failure } from "../failure.ts";
import type { SessionRef, TurnCommit, TurnStore } from "./ports.ts";
import { sequenceOf } from "./turn-log.ts";

// A team that asks a person ends its turn with INPUT_REQUIRED. What is needed to go on with it stands in the turn's last log
// entry; the history's newest message says so, so that a newer turn that says anything makes it void, in its own commit.

/** Version of the stored format that this release writes. */
const SCHEMA_VERSION = 1;

/** A team that waited for a person, and what it has been answered. */
export interface Continuation {
  readonly pending: PendingInput;
  readonly team: TeamDefinition;
  /** All answers so far, by the question's id. */
  readonly answers: ReadonlyMap<string, PersonAnswer>;
  /** Questions that are answered by this turn. */
  readonly fresh: ReadonlySet<string>;
}

/** What a session waits for, if it does. Rejects as the store does. */
export async function pendingOf(
  { tenant, sessionId }: SessionRef,
  { newest, store }: { newest: MessageRecord | undefined; store: Pick<TurnStore, "readLog"> },
): Promise<PendingInput | undefined> {
  const sequence = newest?.pendingInputSequence ?? 0n;
  if (sequence === 0n) return undefined;
  const ref = { tenant, sessionId, turnId: newest?.message?.turnId ?? "" };
  const [entry] = (await store.readLog(ref, sequence - 1n, 1)) ?? [];
  return entry?.pendingInput;
}

/**
 * How a turn goes on with what its session waits for; undefined: it begins anew. A message without approvals answers all
 * that the same team has asked and nobody has answered; where nothing is left of that, it begins anew.
 * APPROVAL_NOT_PENDING: it approves what nobody asks for.
 */
function continuationOf(
  pending: PendingInput | undefined,
  { message, agentTeam, approvals }: Pick<TurnRecord, "message" | "agentTeam" | "approvals">,
): Continuation | undefined {
  const isApproval = approvals.length > 0;
  const asked = new Set(pending?.questions);
  if (isApproval && !approvals.every(({ toolCallId }) => asked.has(toolCallId)))
    throw new Failure("APPROVAL_NOT_PENDING");
  if (pending === undefined || (!isApproval && agentTeam !== pending.agentTeam)) return undefined;
  // A turn that failed has made calls by these: they stand, whatever is answered now.
  const used = new Set(pending.answers.map(({ questionId }) => questionId));
  const open = pending.questions.filter((questionId) => !used.has(questionId));
  if (!isApproval && open.length === 0) return undefined;
  const answered = isApproval
    ? approvals
        .filter(({ toolCallId }) => !used.has(toolCallId))
        .map(({ toolCallId, approved, comment }) => ({ questionId: toolCallId, approved, text: comment }))
    : open.map((questionId) => ({ questionId, approved: false, text: message }));
  const answers = [...pending.answers, ...answered.map((answer) => create(PersonAnswerSchema, answer))];
  return {
    pending,
    team: JSON.parse(pending.agentTeamJson) as TeamDefinition,
    answers: new Map(answers.map((answer) => [answer.questionId, answer])),
    fresh: new Set(answered.map(({ questionId }) => questionId)),
  };
}

/** What a turn that has begun goes on with, or why it is to end instead. Rejects as the store does. */
export async function continuationFor(
  ref: SessionRef,
  {
    record,
    window,
    store,
  }: { record: TurnRecord; window: readonly MessageRecord[]; store: Pick<TurnStore, "readLog"> },
): Promise<{ readonly continued?: Continuation | undefined; readonly notPending?: Failure }> {
  const pending = await pendingOf(ref, { newest: window.at(-1), store });
  try {
    return { continued: continuationOf(pending, record) };
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    return { notPending: error };
  }
}

/** The history without what the turns so far have put there: the team says it itself as it is run anew. */
export function historyBefore(
  window: readonly MessageRecord[],
  continued: Continuation | undefined,
): readonly MessageRecord[] {
  if (continued === undefined) return window;
  const own = new Set(continued.pending.turnIds);
  return window.filter(({ message }) => !own.has(message?.turnId ?? ""));
}

/** Puts into a turn's commit what is needed to go on with its team when it is answered. */
export function addPending(
  { entries, messages }: TurnCommit,
  {
    record,
    team,
    turnId,
    continued,
    results,
    answers,
    questions,
  }: {
    record: Pick<TurnRecord, "message" | "agentTeam">;
    team: TeamDefinition;
    turnId: string;
    continued: Continuation | undefined;
    /** What came of the turn's own calls, in order. */
    results: readonly TurnStep[];
    /** What a person has answered so far, and the team is held to. */
    answers: readonly PersonAnswer[];
    /** Ids of the questions that are open. */
    questions: readonly string[];
  },
): void {
  const before = continued?.pending;
  const [entry, message] = [entries.at(-1), messages.at(-1)] as [TurnLogEntry | undefined, MessageRecord | undefined];
  if (entry === undefined || message === undefined) throw new TypeError("a turn that waits says something and ends");
  entry.pendingInput = create(PendingInputSchema, {
    schemaVersion: SCHEMA_VERSION,
    message: before?.message ?? record.message,
    agentTeam: before?.agentTeam ?? record.agentTeam,
    agentTeamJson: before?.agentTeamJson ?? JSON.stringify(team),
    turnIds: [...(before?.turnIds ?? []), turnId],
    results: [...(before?.results ?? []), ...results],
    answers: [...answers],
    questions: [...questions],
  });
  message.pendingInputSequence = sequenceOf(entry);
}

/** A person's approvals as the history has them, where nothing else was said. */
export function approvalText(approvals: TurnRecord["approvals"]): string {
  return approvals
    .map(({ approved, comment }) => (approved ? "Approved." : `Not approved.${comment === "" ? "" : ` ${comment}`}`))
    .join("\n");
}
