import { create, type JsonObject } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { Role } from "../../gen/parley/chat/v1/message_pb.js";
import { ToolApprovalSchema } from "../../gen/parley/chat/v1/tool_approval_pb.js";
import { type MessageRecord, MessageRecordSchema } from "../../gen/parley/storage/v1/message_record_pb.js";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import { TurnRecordSchema } from "../../gen/parley/storage/v1/turn_record_pb.js";
import type { RateLimiter, RateState } from "../accounts/rate-limit.ts";
import { firstPrompt } from "../engine/single-team.ts";
import { type AgentWishes, type TeamDefinition, teamAsWished } from "../engine/team.ts";
import { Failure } from "../failure.ts";
import { sleep } from "../platform/sleep.ts";
import type { CurrentDefinitions, Definitions } from "./definitions.ts";
import { claimTurn, isFinal, type KeyedTurn, requestHashOf } from "./idempotency.ts";
import { approvalText, continuationFor, pendingOf } from "./pending-input.ts";
import {
  type BeginOutcome,
  type KeyStore,
  type NewTurn,
  NO_USAGE,
  type SessionStore,
  type TurnRef,
  type TurnStore,
} from "./ports.ts";
import { newTurnRef, parseTurnId } from "./turn-id.ts";
import { NO_PAST } from "./turn-journal.ts";
import { logEntry } from "./turn-log-writer.ts";
import { goingAway, type RunningTurn, type TurnRunner } from "./turn-runner.ts";
import { MESSAGE_SCHEMA_VERSION } from "./turn-tally.ts";

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
  /** The team that pays; empty: none. */
  readonly team: string;
  /** Empty: a new session. */
  readonly sessionId: string;
  /** Empty only with approvals. */
  readonly message: string;
  /** A person's answers to what the session's last turn asked; absent: none. */
  readonly approvals?: { toolCallId: string; approved: boolean; comment: string }[];
  readonly metadata?: JsonObject;
  /** Empty: the default team. */
  readonly agentTeam: string;
  readonly useCase: string;
  /** 0: the server's bound. */
  readonly maxTokens: number;
  /** Empty: every request is a new turn. */
  readonly idempotencyKey: string;
  readonly onBusy: NewTurn["onBusy"];
  /** Whether the turn ends with its call. */
  readonly endsWithCall: boolean;
  /** Begin the session that is named, where there is none. Absent: a session that is named must be there. */
  readonly beginsSession?: true;
  /** What was said before, oldest first: the history of the session, if the turn begins one. */
  readonly earlier?: EarlierMessage[];
  /** What the caller wants of the agents in this turn. */
  readonly wishes?: AgentWishes;
}

/** A message of a conversation that its caller kept. */
export type EarlierMessage = {
  readonly role: "user" | "assistant";
  readonly content: string;
};

export interface AdmissionPorts {
  readonly store: Pick<TurnStore, "beginTurn" | "leaveQueue" | "getTurn" | "readLog"> &
    KeyStore &
    Pick<SessionStore, "readWindow">;
  readonly runner: TurnRunner;
  readonly rateLimiter: RateLimiter;
  readonly definitions: CurrentDefinitions;
  readonly release: { readonly version: string; readonly track: string };
  /** Default and upper bound of a turn's tokens. */
  readonly maxTokens: number;
  /** Whether this process accepts no new turns any more. */
  draining(): boolean;
  /** Called with +1 when a turn begins to wait and with -1 when it no longer does. */
  queueChanged(by: 1 | -1): void;
}

/** A turn that a request is answered with. */
export interface AdmittedTurn {
  readonly ref: TurnRef;
  /** The turn was begun by this call; else it was begun by another with the same idempotency key, and is to be read. */
  readonly begun:
    | {
        readonly running: RunningTurn;
        readonly firstEntry: TurnLogEntry;
        /** Version of the release that began the session; empty: not known. */
        readonly sessionVersion: string;
      }
    | undefined;
  /** Where the turn left its user's rate limit; absent: it counted no turn. */
  readonly rate?: RateState;
}

/**
 * Admits a turn, in the order of DESIGN §4, and starts it. Yields the turn's place in the session's queue whenever that
 * changes. Throws the refusal, or the signal's reason when that is aborted while waiting.
 */
export async function* admitTurn(
  request: TurnRequest,
  { ports, signal }: { ports: AdmissionPorts; signal: AbortSignal },
): AsyncGenerator<number, AdmittedTurn> {
  const fresh = newTurnRef({ tenant: request.tenant, sessionId: request.sessionId || crypto.randomUUID() });
  if (request.idempotencyKey === "") return yield* admitNew(request, { ref: fresh, isPaid: false, ports, signal });

  const keyed = await claimTurn(await claimOf(request, fresh), { store: ports.store, signal });
  const { claim, state } = keyed;
  const ref = parseTurnId(claim.turnId) ?? fresh;
  if (state !== "new" && (await ports.store.getTurn(ref)) !== undefined) return { ref, begun: undefined };
  // It had its answer, and that has expired: to run it again would pay twice.
  if (state === "begun") throw new Failure("TURN_NOT_FOUND");
  return yield* admitKeyed(request, { ref, keyed, ports, signal });
}

/** Admits a turn whose key is claimed; a refusal frees the key. */
async function* admitKeyed(
  request: TurnRequest,
  { ref, keyed, ports, signal }: { ref: TurnRef; keyed: KeyedTurn; ports: AdmissionPorts; signal: AbortSignal },
): AsyncGenerator<number, AdmittedTurn> {
  const { claim, state } = keyed;
  const { store } = ports;
  try {
    const onPaid = (): Promise<void> => store.markKey(claim, "admitted");
    const admitted = yield* admitNew(request, { ref, isPaid: state === "admitted", onPaid, ports, signal });
    // Who repeats the request finds the turn itself; the mark is for the time when that has expired.
    store.markKey(claim, "begun").catch(() => undefined);
    return admitted;
  } catch (error) {
    if (isFinal(error)) await store.releaseKey(claim).catch(() => undefined);
    throw error;
  }
}

/** Who pays is not the request's to say; two releases must make the same digest of one request. */
async function claimOf(request: TurnRequest, { turnId }: TurnRef) {
  const { tenant, userId, team: _, idempotencyKey: key, ...fields } = request;
  return { tenant, userId, key, turnId, requestHash: await requestHashOf(fields) };
}

interface Admitting {
  readonly ref: TurnRef;
  /** The rate limit has counted the turn. */
  readonly isPaid: boolean;
  readonly onPaid?: () => Promise<void>;
  readonly ports: AdmissionPorts;
  readonly signal: AbortSignal;
}

async function* admitNew(request: TurnRequest, admitting: Admitting): AsyncGenerator<number, AdmittedTurn> {
  const definitions = admitting.ports.definitions.current;
  // However long it waits for its session: what it was admitted with is there when it begins.
  const letGo = definitions.hold();
  try {
    return yield* admitWith(definitions, request, admitting);
  } finally {
    letGo();
  }
}

async function* admitWith(
  definitions: Definitions,
  request: TurnRequest,
  { ref, isPaid, onPaid, ports, signal }: Admitting,
): AsyncGenerator<number, AdmittedTurn> {
  if (ports.draining()) throw goingAway();
  const { teams, defaultTeam } = definitions;
  const named = teams.get(request.agentTeam || defaultTeam);
  const declared = (await askingTeam(request, { isKnown: named !== undefined, ports })) ?? named;
  if (declared === undefined) throw new Failure("AGENT_TEAM_NOT_FOUND");
  const team = request.wishes === undefined ? declared : teamAsWished(declared, request.wishes);
  let counted: { rate?: RateState } = {};
  if (!isPaid) {
    counted = { rate: await ports.rateLimiter.consume(request.tenant, request.userId) };
    await onPaid?.();
  }
  const maxTokens = request.maxTokens || ports.maxTokens;
  // The refusal that needs no session comes before one is made or locked.
  const alone = { team, history: [], message: request.message, maxTokens };
  if (firstPrompt(alone, definitions) === undefined) throw new Failure("TURN_TOKEN_BUDGET");

  const turn = newTurn(request, { ref, ports, team, maxTokens });
  const begun = yield* waitForLease(turn, { ports, signal });
  if (begun === undefined) return { ref, begun: undefined, ...counted };
  const { lease, window } = begun;
  const { continued, notPending } = await continuationFor(lease, { record: turn.record, window, store: ports.store });
  const begunTurn = {
    lease,
    record: turn.record,
    window,
    team: continued?.team ?? team,
    continued,
    past: NO_PAST,
    usedBefore: NO_USAGE,
    unsettled: [],
    ...(notPending === undefined ? {} : { end: notPending }),
  };
  const running = ports.runner.start(begunTurn, definitions);
  return { ref, begun: { running, firstEntry: turn.firstEntry, sessionVersion: begun.sessionVersion }, ...counted };
}

/**
 * The team that has asked for the approvals that a request has: it goes on, whatever the request calls it. Or the one that it
 * calls by its name, which nothing declares any more, and that has asked something.
 */
async function askingTeam(
  { tenant, sessionId, agentTeam, approvals = [] }: TurnRequest,
  { isKnown, ports: { store } }: { isKnown: boolean; ports: Pick<AdmissionPorts, "store"> },
): Promise<TeamDefinition | undefined> {
  if (approvals.length === 0 && (isKnown || sessionId === "")) return undefined;
  const ref = { tenant, sessionId };
  const pending = await pendingOf(ref, { newest: (await store.readWindow(ref, 1))?.at(-1), store });
  if (pending === undefined || (approvals.length === 0 && pending.agentTeam !== agentTeam)) return undefined;
  return JSON.parse(pending.agentTeamJson) as TeamDefinition;
}

function newTurn(
  request: TurnRequest,
  { ref, ports, team, maxTokens }: { ref: TurnRef; ports: AdmissionPorts; team: TeamDefinition; maxTokens: number },
): NewTurn {
  const { version, track } = ports.release;
  const { sessionId, turnId } = ref;
  const approvals = (request.approvals ?? []).map((approval) => create(ToolApprovalSchema, approval));
  return {
    ...ref,
    createSession: request.sessionId === "" || request.beginsSession === true,
    userId: request.userId,
    version,
    record: create(TurnRecordSchema, {
      schemaVersion: TURN_SCHEMA_VERSION,
      userId: request.userId,
      agentTeam: team.name,
      useCase: request.useCase,
      message: request.message || approvalText(approvals),
      approvals,
      maxTokens,
      createTime: timestampNow(),
      agentTeamJson: JSON.stringify(team),
      team: request.team,
      version,
      ...(request.metadata === undefined ? {} : { metadata: request.metadata }),
    }),
    firstEntry: logEntry(1n, {
      case: "turnStarted",
      value: { sessionId, turnId, agentTeam: team.name, version, track },
    }),
    nonce: crypto.randomUUID(),
    maxQueue: MAX_QUEUE,
    // Whether the session waits for a person stands in its newest message.
    windowMessages: Math.max(1, team.historyMessages),
    onBusy: request.onBusy,
    ...(request.earlier === undefined ? {} : { earlier: earlierRecords(request.earlier, { turnId, team }) }),
  };
}

/**
 * What a session begins with: of what the caller kept, the newest that the team reads of a history. Their tokens are
 * counted when they are read, as those of messages that another model's tokenizer counted.
 */
function earlierRecords(
  earlier: readonly EarlierMessage[],
  { turnId, team }: { turnId: string; team: TeamDefinition },
): MessageRecord[] {
  const read = team.historyMessages > 0 ? earlier.slice(-team.historyMessages) : [];
  return read.map(({ role, content }, index) =>
    create(MessageRecordSchema, {
      schemaVersion: MESSAGE_SCHEMA_VERSION,
      message: {
        role: role === "user" ? Role.USER : Role.ASSISTANT,
        agent: role === "user" ? "" : team.agents[0].name,
        content,
        messageId: `${turnId}.e${index + 1}`,
        turnId,
        createTime: timestampNow(),
      },
    }),
  );
}

type Begun = Extract<BeginOutcome, { state: "begun" }>;

/** Undefined: another call has begun the turn. */
async function* waitForLease(
  turn: NewTurn,
  { ports, signal }: { ports: AdmissionPorts; signal: AbortSignal },
): AsyncGenerator<number, Begun | undefined> {
  let waiting = false;
  let place = 0;
  let toldMs = 0;
  let retryMs: number = QUEUE_RETRY_MS.first;
  const wait = (by: 1 | -1): void => {
    waiting = by === 1;
    ports.queueChanged(by);
    ports.runner.waits(by);
  };
  try {
    for (;;) {
      const outcome = await ports.store.beginTurn(turn);
      switch (outcome.state) {
        case "begun":
          if (waiting) wait(-1);
          return outcome;
        case "exists":
          return undefined;
        case "preempted":
          // It stands in the queue meanwhile, at its head.
          if (!waiting) wait(1);
          await ports.runner.end(outcome.running);
          signal.throwIfAborted();
          break;
        case "queued":
          if (!waiting) wait(1);
          if (outcome.position !== place || performance.now() - toldMs > QUEUE_HEARTBEAT_MS) {
            place = outcome.position;
            toldMs = performance.now();
            yield place;
          }
          await sleep(retryMs, signal);
          retryMs = Math.min(retryMs * 2, QUEUE_RETRY_MS.most);
      }
      // Accepted turns are waited for by a drain, as long as it lasts. An end that could not be written is then for whoever
      // finds the lease given up.
      if (ports.runner.drained) throw goingAway();
    }
  } finally {
    if (waiting) {
      wait(-1);
      // Best effort: a place that nobody asks for lapses by itself.
      await ports.store.leaveQueue(turn).catch(() => undefined);
    }
  }
}
