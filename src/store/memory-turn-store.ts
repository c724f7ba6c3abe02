import { FinishReason, type Turn } from "../../gen/parley/chat/v1/turn_pb.js";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import { Failure } from "../failure.ts";
import {
  type BeginOutcome,
  type ClaimedTurn,
  type Lease,
  MAX_LOG_EVENTS,
  type NewTurn,
  NO_USAGE,
  QUEUE_TICKET_MS,
  type TurnRef,
  type TurnStore,
} from "../turns/ports.ts";
import { sequenceOf } from "../turns/turn-log.ts";
import { createLogHub } from "./log-hub.ts";
import { type MemoryState, type StoredSession, type StoredTurn, windowOf } from "./memory-state.ts";
import { addUsage, firstSequenceOf, gapFailure, trimmedFailure, turnView, usageOf } from "./record-views.ts";
import { busyFailure, QUEUE_FULL_RETRY_MS, sessionOfTurn } from "./session-records.ts";

/** The half of the embedded store that keeps turns. */
export function createMemoryTurnStore({ state, leaseMs }: { state: MemoryState; leaseMs: number }): TurnStore {
  const hub = createLogHub();
  const stopListeners = new Set<(turnId: string) => void>();

  const fenced = (lease: Lease): { session: StoredSession; turn: StoredTurn } => {
    const session = state.find(lease);
    const turn = session?.turns.get(lease.turnId);
    // A session lives as long as its turns: one without this turn is another session of the same id.
    if (session === undefined || turn === undefined) throw new Failure("SESSION_DELETED");
    if (!isSame(session.lease, lease)) throw new Failure("LEASE_LOST");
    return { session, turn };
  };
  const tellOwner = (turnId: string): void => {
    for (const onStop of stopListeners) onStop(turnId);
  };
  const getTurn = async (ref: TurnRef): Promise<Turn | undefined> => {
    const turn = state.findTurn(ref);
    return turn && turnView(ref, turn);
  };

  return {
    async beginTurn(turn) {
      let session = state.find(turn);
      if (session === undefined) {
        if (!turn.createSession) throw new Failure("SESSION_NOT_FOUND");
        session = state.add(sessionOfTurn(turn));
        session.messages.push(...(turn.earlier ?? []));
      } else if (session.record.userId !== turn.userId) {
        throw new Failure("SESSION_NOT_FOUND");
      }
      state.touch(session);
      const outcome = begin({ turn, session, nowMs: state.now(), leaseMs });
      if (outcome.state === "preempted") tellOwner(outcome.running.lease.turnId);
      return outcome;
    },

    async leaveQueue(ref) {
      const session = state.find(ref);
      if (session !== undefined) session.queue = session.queue.filter(({ turnId }) => turnId !== ref.turnId);
    },

    async append(lease, entries, steps = []) {
      const { session, turn } = fenced(lease);
      const linesAfter = steps.at(-1)?.line ?? 0;
      const hasAll = (entries.at(-1)?.event?.sequence ?? 0n) <= turn.lastSequence && linesAfter <= turn.steps.length;
      if (turn.stop !== undefined && !hasAll) return turn.stop;
      if (entries.length > 0 && appendTo(turn, entries)) turn.usage = addUsage(turn.usage, usageOf(entries));
      turn.steps.push(...steps.filter(({ line }) => line > turn.steps.length));
      session.lease = { ...lease, untilMs: state.now() + leaseMs };
      hub.publish(lease, entries);
      return undefined;
    },

    async commitTurn(lease, commit) {
      if (isSame(state.findTurn(lease)?.committedBy, lease)) return;
      const { session, turn } = fenced(lease);
      appendTo(turn, commit.entries);
      turn.finishReason = commit.finishReason;
      turn.usage = addUsage(NO_USAGE, commit);
      turn.committedBy = lease;
      turn.steps.length = 0;
      session.messages.push(...commit.messages);
      session.usage = addUsage(session.usage, commit);
      session.updateTimeMs = state.now();
      session.lease = undefined;
      hub.publish(lease, commit.entries);
    },

    async renewLease(lease) {
      const { session, turn } = fenced(lease);
      session.lease = { ...lease, untilMs: state.now() + leaseMs };
      state.touch(session);
      return turn.stop;
    },

    async releaseLease(lease) {
      const { session, turn } = fenced(lease);
      if (session.lease?.untilMs !== 0) turn.takeovers -= 1;
      session.lease = { ...lease, untilMs: 0 };
    },

    async stopTurn(ref, reason) {
      const turn = state.findTurn(ref);
      if (turn === undefined) return undefined;
      if (turn.finishReason === FinishReason.UNSPECIFIED) {
        turn.stop ??= reason;
        tellOwner(ref.turnId);
      }
      return getTurn(ref);
    },

    async claimTurns(limit) {
      state.sweep();
      const nowMs = state.now();
      const claimed: ClaimedTurn[] = [];
      for (const session of state.sessions.values()) {
        if (claimed.length === limit) break;
        if (session.lease === undefined || session.lease.untilMs > nowMs) continue;
        claimed.push(take({ session, nonce: crypto.randomUUID(), untilMs: nowMs + leaseMs }));
      }
      return claimed;
    },

    getTurn,

    async readLog(ref, afterSequence, limit) {
      const turn = state.findTurn(ref);
      if (turn === undefined) return undefined;
      const oldest = turn.lastSequence - BigInt(turn.log.length) + 1n;
      if (afterSequence + 1n < oldest) throw trimmedFailure({ oldest, newest: turn.lastSequence });
      const start = Number(afterSequence + 1n - oldest);
      return turn.log.slice(start, start + limit);
    },

    // There is no other process whose appends would have to be heard of.
    follow: (ref, onEntries) => hub.follow(ref, onEntries),

    onStop(onStop) {
      const listener = (turnId: string): void => onStop(turnId);
      stopListeners.add(listener);
      return () => void stopListeners.delete(listener);
    },
  };
}

/** Takes the lease, or a place in the queue. */
function begin({
  turn,
  session,
  nowMs,
  leaseMs,
}: {
  turn: NewTurn;
  session: StoredSession;
  nowMs: number;
  leaseMs: number;
}): BeginOutcome {
  const { lease: held } = session;
  const sessionVersion = session.record.version;
  const window = windowOf(session, turn.windowMessages);
  if (held?.turnId === turn.turnId && held.nonce === turn.nonce) {
    session.lease = { ...held, untilMs: nowMs + leaseMs };
    return { state: "begun", lease: leaseOf(held), window, sessionVersion };
  }
  if (session.turns.has(turn.turnId)) return { state: "exists" };

  session.queue = session.queue.filter(({ untilMs }) => untilMs > nowMs);
  const { queue } = session;
  const own = queue.find(({ turnId }) => turnId === turn.turnId);
  if (own !== undefined) own.untilMs = nowMs + QUEUE_TICKET_MS;
  const running = held === undefined ? undefined : session.turns.get(held.turnId);
  const isNext = held === undefined && (queue.length === 0 || queue[0] === own);
  if (!isNext && turn.onBusy === "reject") {
    session.queue = queue.filter((place) => place !== own);
    throw busyFailure({ turnId: held?.turnId ?? "", lastSequence: running?.lastSequence ?? 0n });
  }
  if (!isNext) {
    const place = own ?? { turnId: turn.turnId, untilMs: nowMs + QUEUE_TICKET_MS };
    const stop = stopFor(turn);
    if (own === undefined) {
      if (queue.length >= turn.maxQueue) {
        throw new Failure("SESSION_QUEUE_FULL", { retryAfterMs: QUEUE_FULL_RETRY_MS });
      }
      if (stop === undefined) queue.push(place);
      else queue.unshift(place);
      if (stop !== undefined && running !== undefined && running.stop === undefined) {
        running.stop = stop;
        return { state: "preempted", running: take({ session, nonce: turn.nonce, untilMs: nowMs + leaseMs }) };
      }
    }
    // Its end was not written yet.
    if (held?.nonce === turn.nonce) {
      return { state: "preempted", running: take({ session, nonce: turn.nonce, untilMs: nowMs + leaseMs }) };
    }
    return { state: "queued", position: queue.indexOf(place) + (held === undefined ? 0 : 1) };
  }

  session.queue = queue.filter((place) => place !== own);
  session.epoch += 1;
  const { tenant, sessionId, turnId, nonce } = turn;
  const lease: Lease = { tenant, sessionId, turnId, nonce, epoch: session.epoch };
  session.lease = { ...lease, untilMs: nowMs + leaseMs };
  session.turns.set(turnId, {
    record: turn.record,
    windowMessages: turn.windowMessages,
    log: [turn.firstEntry],
    lastSequence: sequenceOf(turn.firstEntry),
    steps: [],
    stop: undefined,
    takeovers: 0,
    finishReason: FinishReason.UNSPECIFIED,
    usage: NO_USAGE,
    committedBy: undefined,
  });
  return { state: "begun", lease, window, sessionVersion };
}

function stopFor({ onBusy }: NewTurn): FinishReason.INTERRUPTED | FinishReason.ROLLED_BACK | undefined {
  if (onBusy === "interrupt") return FinishReason.INTERRUPTED;
  return onBusy === "rollback" ? FinishReason.ROLLED_BACK : undefined;
}

/** Gives the running turn's lease to a new owner. */
function take({ session, nonce, untilMs }: { session: StoredSession; nonce: string; untilMs: number }): ClaimedTurn {
  const turnId = session.lease?.turnId ?? "";
  const turn = session.turns.get(turnId);
  if (turn === undefined) throw new TypeError("a lease without a turn");
  if (session.lease?.nonce !== nonce) turn.takeovers += 1;
  session.epoch += 1;
  const lease: Lease = { ...session.ref, turnId, nonce, epoch: session.epoch };
  session.lease = { ...lease, untilMs };
  return {
    lease,
    record: turn.record,
    window: windowOf(session, turn.windowMessages),
    steps: [...turn.steps],
    lastSequence: turn.lastSequence,
    usage: turn.usage,
    stop: turn.stop,
    takeovers: turn.takeovers,
  };
}

/** Appends what the log lacks. False: it had them all. */
function appendTo(turn: StoredTurn, entries: readonly TurnLogEntry[]): boolean {
  const first = firstSequenceOf(entries);
  if (first > turn.lastSequence + 1n) throw gapFailure();
  const missing = entries.slice(Number(turn.lastSequence + 1n - first));
  if (missing.length === 0) return false;
  turn.log.push(...missing);
  turn.lastSequence += BigInt(missing.length);
  if (turn.log.length > MAX_LOG_EVENTS) turn.log = turn.log.slice(-MAX_LOG_EVENTS);
  return true;
}

function leaseOf({ tenant, sessionId, turnId, nonce, epoch }: Lease): Lease {
  return { tenant, sessionId, turnId, nonce, epoch };
}

function isSame(held: Lease | undefined, lease: Lease): boolean {
  return held?.turnId === lease.turnId && held.epoch === lease.epoch && held.nonce === lease.nonce;
}
