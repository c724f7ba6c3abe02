import { create, type JsonObject } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { TurnRecordSchema } from "../../gen/parley/storage/v1/turn_record_pb.js";
import type { RateLimiter } from "../accounts/rate-limit.ts";
import { firstPrompt } from "../engine/single-team.ts";
import type { TeamDefinition } from "../engine/team.ts";
import { tokenizerFor } from "../engine/tokenizer.ts";
import { Failure } from "../failure.ts";
import type { BeginOutcome, NewTurn, TurnStore } from "./ports.ts";
import { newTurnRef } from "./turn-id.ts";
import { logEntry } from "./turn-log-writer.ts";
import type { RunningTurn, TurnRunner } from "./turn-runner.ts";

/** Turns that may wait for a session (DESIGN §3). */
const MAX_QUEUE = 16;

/** How often a waiting turn tries again: quickly at first, then every so many milliseconds. */
const QUEUE_RETRY_MS = { first: 10, most: 200 } as const;

/** A waiting client hears of its place after this much silence, in milliseconds, moved on or not. */
const QUEUE_HEARTBEAT_MS = 15_000;

/** Version of the stored turn format that this release writes. */
const TURN_SCHEMA_VERSION = 1;

/** A turn that somebody asks for, its fields checked. */
export interface TurnRequest {
  readonly tenant: string;
  readonly userId: string;
  /** Empty: a new session. */
  readonly sessionId: string;
  readonly message: string;
  readonly metadata?: JsonObject;
  /** Empty: the default team. */
  readonly agentTeam: string;
  readonly useCase: string;
  /** 0: the server's bound. */
  readonly maxTokens: number;
}

export interface AdmissionPorts {
  readonly store: Pick<TurnStore, "beginTurn" | "leaveQueue" | "closeAbandoned">;
  readonly runner: TurnRunner;
  readonly rateLimiter: RateLimiter;
  readonly teams: { readonly byName: ReadonlyMap<string, TeamDefinition>; readonly defaultTeam: string };
  readonly release: { readonly version: string; readonly track: string };
  /** Default and upper bound of a turn's tokens. */
  readonly maxTokens: number;
  /** Whether this process takes no new turns any more. */
  draining(): boolean;
  /** Called with +1 when a turn begins to wait and with -1 when it no longer does. */
  queueChanged(by: 1 | -1): void;
}

/**
 * Admits a turn, in the order of DESIGN §4, and starts it. Yields the turn's place in the session's queue whenever that
 * changes; returns the running turn. Throws the refusal, or the signal's reason when that is aborted while waiting.
 */
export async function* admitTurn(
  request: TurnRequest,
  { ports, signal }: { ports: AdmissionPorts; signal: AbortSignal },
): AsyncGenerator<number, RunningTurn> {
  if (ports.draining()) throw new Failure("DRAINING", { retryAfterMs: 1_000 });
  await ports.rateLimiter.consume(request.tenant, request.userId);
  const team = ports.teams.byName.get(request.agentTeam || ports.teams.defaultTeam);
  if (team === undefined) throw new Failure("AGENT_TEAM_NOT_FOUND");
  const maxTokens = request.maxTokens || ports.maxTokens;
  // The refusal that needs no session comes before one is made or locked.
  const alone = { team, history: [], message: request.message, maxTokens };
  if (firstPrompt(alone, tokenizerFor(team.agents[0].model)) === undefined) throw new Failure("TURN_TOKEN_BUDGET");

  const turn = newTurn(request, { ports, team, maxTokens });
  const lease = yield* waitForLease(turn, { ports, signal });
  return ports.runner.start({
    lease: lease.lease,
    window: lease.window,
    firstEntry: turn.firstEntry,
    team,
    message: request.message,
    maxTokens,
  });
}

function newTurn(
  request: TurnRequest,
  { ports, team, maxTokens }: { ports: AdmissionPorts; team: TeamDefinition; maxTokens: number },
): NewTurn {
  const sessionId = request.sessionId || crypto.randomUUID();
  const ref = newTurnRef({ tenant: request.tenant, sessionId });
  const { version, track } = ports.release;
  return {
    ...ref,
    createSession: request.sessionId === "",
    userId: request.userId,
    version,
    record: create(TurnRecordSchema, {
      schemaVersion: TURN_SCHEMA_VERSION,
      userId: request.userId,
      agentTeam: team.name,
      useCase: request.useCase,
      message: request.message,
      maxTokens,
      createTime: timestampNow(),
      ...(request.metadata === undefined ? {} : { metadata: request.metadata }),
    }),
    firstEntry: logEntry(1n, {
      case: "turnStarted",
      value: { sessionId, turnId: ref.turnId, agentTeam: team.name, version, track },
    }),
    nonce: crypto.randomUUID(),
    maxQueue: MAX_QUEUE,
    windowMessages: team.historyMessages,
  };
}

type Begun = Extract<BeginOutcome, { state: "begun" }>;

async function* waitForLease(
  turn: NewTurn,
  { ports, signal }: { ports: AdmissionPorts; signal: AbortSignal },
): AsyncGenerator<number, Begun> {
  let waiting = false;
  let place = 0;
  let toldMs = 0;
  let retryMs: number = QUEUE_RETRY_MS.first;
  try {
    for (;;) {
      const outcome = await ports.store.beginTurn(turn);
      switch (outcome.state) {
        case "begun":
          waiting = leaveCount(waiting, ports);
          return outcome;
        case "abandoned": {
          const closing = logEntry(outcome.lastSequence + 1n, {
            case: "turnCompleted",
            value: { finishReason: FinishReason.ERROR },
          });
          closing.failure = { $typeName: "parley.storage.v1.TurnFailure", reason: "TURN_LOST", retryAfterMs: 0n };
          await ports.store.closeAbandoned({ ...turn, turnId: outcome.turnId }, outcome.lastSequence, closing);
          continue;
        }
        case "queued":
          if (!waiting) {
            waiting = true;
            ports.queueChanged(1);
          }
          if (outcome.position !== place || performance.now() - toldMs > QUEUE_HEARTBEAT_MS) {
            place = outcome.position;
            toldMs = performance.now();
            yield place;
          }
      }
      await sleep(retryMs, signal);
      retryMs = Math.min(retryMs * 2, QUEUE_RETRY_MS.most);
      if (ports.draining()) throw new Failure("DRAINING", { retryAfterMs: 1_000 });
    }
  } finally {
    if (waiting) {
      leaveCount(waiting, ports);
      // Best effort: a place that nobody asks for lapses by itself.
      await ports.store.leaveQueue(turn).catch(() => undefined);
    }
  }
}

function leaveCount(waiting: boolean, ports: AdmissionPorts): false {
  if (waiting) ports.queueChanged(-1);
  return false;
}

/** Waits; rejects with the signal's reason when that is aborted. */
function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      if (signal.aborted) reject(signal.reason);
      else resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
    if (signal.aborted) done();
  });
}
