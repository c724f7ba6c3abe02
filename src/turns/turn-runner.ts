import { create } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { Role } from "../../gen/parley/chat/v1/message_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { type MessageRecord, MessageRecordSchema } from "../../gen/parley/storage/v1/message_record_pb.js";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import type { Model } from "../engine/model.ts";
import { runSingleTeam } from "../engine/single-team.ts";
import type { TeamDefinition } from "../engine/team.ts";
import { tokenizerFor } from "../engine/tokenizer.ts";
import type { TurnEnd, TurnEvent } from "../engine/turn.ts";
import { Failure, type FailureReason } from "../failure.ts";
import type { Lease, TurnCommit, TurnRef, TurnStore } from "./ports.ts";
import { createTurnLogWriter } from "./turn-log-writer.ts";

/** Version of the stored message format that this release writes. */
const MESSAGE_SCHEMA_VERSION = 1;

/** A store that fails is tried again after this many milliseconds, until the lease has run out. */
const STORE_RETRY_MS = 100;

/** A lease that is refused for these is no longer ours. */
const LEASE_IS_OVER: ReadonlySet<FailureReason> = new Set(["LEASE_LOST", "SESSION_DELETED"]);

/** A turn that this process has begun and works on. */
export interface RunningTurn {
  readonly ref: TurnRef;
  /** The log's first entry. */
  readonly firstEntry: TurnLogEntry;
  /** Ends the turn early, with what was said. */
  stop(finishReason: FinishReason.CANCELLED | FinishReason.DEADLINE): void;
  /** Aborted when this process cannot go on with the turn and did not write its end. */
  readonly lost: AbortSignal;
}

/** A turn that the store has begun. */
export interface BegunTurn {
  readonly lease: Lease;
  readonly firstEntry: TurnLogEntry;
  readonly window: readonly MessageRecord[];
  readonly team: TeamDefinition;
  readonly message: string;
  readonly maxTokens: number;
}

/** Works on turns, each to its end, whoever reads them. */
export class TurnRunner {
  readonly #ports: TurnRunnerPorts;
  readonly #running = new Map<string, { stop: AbortController; lost: AbortController; done: Promise<void> }>();

  constructor(ports: TurnRunnerPorts) {
    this.#ports = ports;
  }

  /** Turns that this process works on. */
  get inFlight(): number {
    return this.#running.size;
  }

  /** Begins to work on a turn, in the next tick: whoever follows the log by then misses nothing. */
  start(turn: BegunTurn): RunningTurn {
    const stop = new AbortController();
    const lost = new AbortController();
    const done = Promise.resolve()
      .then(() => this.#run(turn, stop, lost))
      .finally(() => this.#running.delete(turn.lease.turnId));
    this.#running.set(turn.lease.turnId, { stop, lost, done });
    return {
      ref: turn.lease,
      firstEntry: turn.firstEntry,
      lost: lost.signal,
      stop: (finishReason) => stop.abort(new TurnStopped(finishReason)),
    };
  }

  /** Waits until the running turns have ended; gives up those that have not after `deadlineMs`. */
  async drain(deadlineMs: number): Promise<void> {
    const all = Promise.all([...this.#running.values()].map((turn) => turn.done));
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), deadlineMs);
    const expired = new Promise<void>((resolve) => late.signal.addEventListener("abort", () => resolve()));
    await Promise.race([all, expired]);
    clearTimeout(timer);
    for (const turn of this.#running.values()) turn.lost.abort(new Failure("DRAINING", { retryAfterMs: 1_000 }));
    await all;
  }

  async #run(turn: BegunTurn, stop: AbortController, lost: AbortController): Promise<void> {
    const { store, model, leaseMs, observer } = this.#ports;
    const { lease } = turn;
    const { signal } = stop;
    lost.signal.addEventListener("abort", () => stop.abort(lost.signal.reason), { once: true });
    const startedMs = performance.now();
    const said = createTally(turn);
    const durably = <T>(write: () => Promise<T>): Promise<T> =>
      retryStore(write, { forMs: leaseMs, signal: lost.signal });
    // Counted when it is in the log, so that metrics and records agree even of a turn that is lost.
    const recorded = (entries: readonly TurnLogEntry[]): void => {
      for (const call of entries.flatMap(tokensOf)) observer.tokensRecorded(call);
    };
    const writer = createTurnLogWriter({
      lastSequence: 1n,
      append: async (entries) => {
        await durably(() => store.append(lease, entries));
        recorded(entries);
      },
      onError: (error) => lost.abort(error),
    });
    const renewal = setInterval(() => {
      store.renewLease(lease).catch((error: unknown) => {
        // A store that does not answer is the appends' business; a lease that is another's ends the work here.
        if (error instanceof Failure && LEASE_IS_OVER.has(error.reason)) lost.abort(error);
      });
    }, leaseMs / 3);
    const emit = (event: TurnEvent): void => {
      said.add(event);
      writer.emit(event);
    };

    try {
      const end = await this.#work(turn, { emit, signal, model });
      if (end.finishReason === FinishReason.CANCELLED && signal.reason instanceof TurnStopped) {
        end.finishReason = signal.reason.finishReason;
      }
      emit({
        case: "turnCompleted",
        value: {
          finishReason: end.finishReason,
          tokenUsage: {
            promptTokens: said.promptTokens,
            completionTokens: said.completionTokens,
            totalTokens: said.promptTokens + said.completionTokens,
          },
          ...(end.termination === undefined ? {} : { termination: end.termination }),
        },
      });
      const entries = await writer.finish();
      lost.signal.throwIfAborted();
      const last = entries.at(-1);
      if (end.failure !== undefined && last !== undefined) {
        last.failure = {
          $typeName: "parley.storage.v1.TurnFailure",
          reason: end.failure.reason,
          retryAfterMs: BigInt(Math.ceil(end.failure.facts.retryAfterMs ?? 0)),
        };
      }
      await durably(() => store.commitTurn(lease, said.commit({ entries, end })));
      recorded(entries);
      observer.turnEnded({
        turn,
        finishReason: end.finishReason,
        seconds: (performance.now() - startedMs) / 1_000,
        usage: said.usage,
        failure: end.failure,
      });
    } catch (error) {
      lost.abort(error);
      observer.turnLost({ turn, error: lost.signal.reason });
    } finally {
      clearInterval(renewal);
    }
  }

  /** The team's work; a failure becomes an end of the turn, except where the turn itself is lost. */
  async #work(
    turn: BegunTurn,
    ports: { emit(event: TurnEvent): void; signal: AbortSignal; model: Model },
  ): Promise<WorkEnd> {
    let messages = 0;
    const input = { team: turn.team, history: turn.window, message: turn.message, maxTokens: turn.maxTokens };
    try {
      const run = () => runSingleTeam(input, { ...ports, newMessageId: () => `${turn.lease.turnId}.${++messages}` });
      return { ...(await this.#ports.observer.around(turn, run)) };
    } catch (error) {
      ports.signal.throwIfAborted();
      if (error instanceof Failure) return { finishReason: FinishReason.ERROR, failure: error };
      this.#ports.observer.unexpected(turn, error);
      return { finishReason: FinishReason.ERROR, failure: new Failure("INTERNAL", {}, { cause: error }) };
    }
  }
}

export interface TurnRunnerPorts {
  readonly store: Pick<TurnStore, "append" | "commitTurn" | "renewLease">;
  readonly model: Model;
  readonly leaseMs: number;
  readonly observer: TurnObserver;
}

/** What logs, metrics and traces want to know of turns. */
export interface TurnObserver {
  /** Runs a team's work inside what the observer keeps around it, such as a span. */
  around(turn: BegunTurn, work: () => Promise<TurnEnd>): Promise<TurnEnd>;
  /** A model call's usage stands in a turn's log. */
  tokensRecorded(call: CallTokens): void;
  turnEnded(end: {
    readonly turn: BegunTurn;
    readonly finishReason: FinishReason;
    readonly seconds: number;
    /** Each model call's tokens. */
    readonly usage: readonly CallTokens[];
    readonly failure: Failure | undefined;
  }): void;
  /** The process could not write the turn's end. */
  turnLost(loss: { readonly turn: BegunTurn; readonly error: unknown }): void;
  /** A defect of ours. */
  unexpected(turn: BegunTurn, error: unknown): void;
}

/** Tokens of one model call. */
export interface CallTokens {
  readonly model: string;
  readonly promptTokens: number;
  readonly completionTokens: number;
}

/** The model call whose usage an entry records, if it does. */
function tokensOf({ event }: TurnLogEntry): CallTokens[] {
  if (event?.event.case !== "usageRecorded") return [];
  const { model, tokenUsage } = event.event.value;
  return [{ model, promptTokens: tokenUsage?.promptTokens ?? 0, completionTokens: tokenUsage?.completionTokens ?? 0 }];
}

/** Reason of a stop signal. */
class TurnStopped extends Error {
  readonly finishReason: FinishReason;

  constructor(finishReason: FinishReason) {
    super("turn stopped");
    this.finishReason = finishReason;
  }
}

type WorkEnd = { -readonly [K in keyof TurnEnd]: TurnEnd[K] } & { failure?: Failure };

/** Repeats a write while the store does not answer. Writes under a lease are idempotent, so a lost answer does no harm. */
async function retryStore<T>(
  write: () => Promise<T>,
  { forMs, signal }: { forMs: number; signal: AbortSignal },
): Promise<T> {
  const untilMs = performance.now() + forMs;
  for (;;) {
    try {
      return await write();
    } catch (error) {
      const worthIt = error instanceof Failure && error.reason === "STORE_UNAVAILABLE" && performance.now() < untilMs;
      if (!worthIt || signal.aborted) throw error;
      await new Promise((resolve) => setTimeout(resolve, STORE_RETRY_MS));
    }
  }
}

/** Sums up a turn's events into what its commit writes. */
function createTally(turn: BegunTurn) {
  const tokenizer = tokenizerFor(turn.team.agents[0].model);
  const record = (message: MessageRecord["message"] & object): MessageRecord =>
    create(MessageRecordSchema, {
      schemaVersion: MESSAGE_SCHEMA_VERSION,
      message,
      tokenCount: tokenizer.countText(message.content),
      tokenizer: tokenizer.name,
    });
  const asked = timestampNow();
  const spoken: { agent: string; content: string; messageId: string; createTime: typeof asked }[] = [];
  const usage: CallTokens[] = [];
  const sum = (count: (call: CallTokens) => number): number => usage.reduce((total, call) => total + count(call), 0);
  return {
    usage,
    get promptTokens() {
      return sum((call) => call.promptTokens);
    },
    get completionTokens() {
      return sum((call) => call.completionTokens);
    },
    add(event: TurnEvent): void {
      if (event.case === "messageCompleted" && event.value.content) {
        const { agent = "", content, messageId = "" } = event.value;
        spoken.push({ agent, content, messageId, createTime: timestampNow() });
      } else if (event.case === "usageRecorded") {
        const { promptTokens = 0, completionTokens = 0 } = event.value.tokenUsage ?? {};
        usage.push({ model: event.value.model ?? "", promptTokens, completionTokens });
      }
    },
    /** A failed turn leaves nothing in the history: who tries again says the same message once more. */
    commit({ entries, end }: { entries: readonly TurnLogEntry[]; end: WorkEnd }): TurnCommit {
      const { turnId } = turn.lease;
      const failed = end.finishReason === FinishReason.ERROR;
      const common = { $typeName: "parley.chat.v1.Message", turnId } as const;
      return {
        entries,
        messages: failed
          ? []
          : [
              record({
                ...common,
                role: Role.USER,
                agent: "",
                content: turn.message,
                messageId: `${turnId}.0`,
                createTime: asked,
              }),
              ...spoken.map((message) => record({ ...common, role: Role.ASSISTANT, ...message })),
            ],
        finishReason: end.finishReason,
        promptTokens: this.promptTokens,
        completionTokens: this.completionTokens,
        costMicroUsd: 0n,
      };
    },
  };
}
