import { type CallOptions, type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import {
  ChatService,
  OnBusy,
  OnDisconnect,
  type ResumeTurnResponse,
  type StreamChatResponse,
} from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { TurnCursorSchema } from "../../gen/parley/chat/v1/turn_pb.js";
import { threeWires } from "../rpc/wires.ts";
import type { ClientsSeen, Reading, ReadingEnd } from "./observations.ts";
import { type DeleteAction, messageOf, type TurnAction, type TurnTouch } from "./schedule.ts";
import { pauseFor, type World } from "./world.ts";

/** The user of all turns. */
const USER = "soak";

/** A call that is not a reader's is given up after this long, in milliseconds, and tried again elsewhere. */
const CALL_MS = 3_000;

/** Between two tries of a client, in milliseconds. */
const RETRY_MS = 60;

/** A unary call hears nothing until its end: its client is more patient by so much. */
const UNARY_PATIENCE = 5;

/** A unary call's client goes away this much later for each event that a reader would have waited for, in milliseconds. */
const UNARY_EVENT_MS = 25;

/** Refusals and ends after which a client does not try again. */
const FINAL: ReadonlySet<string> = new Set([
  "SESSION_NOT_FOUND",
  "SESSION_BUSY",
  "SESSION_QUEUE_FULL",
  "SESSION_DELETED",
  "TURN_NOT_FOUND",
  "TURN_CANCELLED",
  "TURN_INTERRUPTED",
  "TURN_ROLLED_BACK",
  "TURN_LOST",
]);

/** Never to be seen by a client, whatever the schedule. */
const NEVER: ReadonlySet<string> = new Set([
  "INTERNAL",
  "LEASE_LOST",
  "CURSOR_OUT_OF_RANGE",
  "TURN_LOG_TRIMMED",
  "IDEMPOTENCY_KEY_REUSED",
  "MODEL_UNAVAILABLE",
  "MODEL_REFUSED",
  "RATE_LIMITED",
  "INVALID_FIELD",
  "STORED_FORMAT_UNKNOWN",
]);

/** What the clients of a schedule do; each of these resolves when its client is done. */
export interface Clients {
  readonly seen: ClientsSeen;
  turn(action: TurnAction): Promise<void>;
  touch(action: TurnTouch): Promise<void>;
  createSession(sessionId: string): Promise<void>;
  deleteSession(action: Pick<DeleteAction, "session" | "replica">): Promise<void>;
}

/** Where a client reads on. */
interface Place {
  turnId: string;
  lastSequence: bigint;
}

/** @param patienceMs Clients that have no end after this long complain. */
export function createClients({ world, patienceMs }: { world: World; patienceMs: number }): Clients {
  const seen: ClientsSeen = {
    readings: [],
    replies: [],
    cancels: [],
    deletes: new Map(),
    complaints: [],
    retries: 0,
    resumes: 0,
  };
  const untilMs = performance.now() + patienceMs;
  /** The turns that were asked for, by name, as far as their clients know them. */
  const known = new Map<string, { readonly action: TurnAction } & Place>();

  const complainOf = (how: string, end: ReadingEnd): void => {
    const reason = reasonOf(end);
    if (NEVER.has(reason)) seen.complaints.push(`${how} ended with ${reason}`);
  };
  /** Asks for a turn, or reads it on, until its end; once for each copy of a call. */
  const follow = async (action: TurnAction, { replica, place }: { replica: number; place: Place }): Promise<void> => {
    let dropAfter = action.dropAfter;
    for (let attempt = 0; performance.now() < untilMs; attempt++) {
      const number = replica + attempt;
      const chat = await chatOf(world, number, action.wire);
      if (place.turnId === "" && attempt > 0) seen.retries++;
      const isUnary = action.unary && place.turnId === "";
      const outcome = isUnary
        ? await askUnary(chat, { action, number, dropAfter, place })
        : await readOnce(chat, { action, number, dropAfter, place });
      if (outcome === "over") return;
      if (performance.now() >= untilMs) break;
      if (outcome === "dropped") {
        if (!action.comesBack) return;
        dropAfter = undefined;
      }
      // Who has neither a turn nor a key cannot know whether it began.
      if (place.turnId === "" && !action.keyed) return;
      await pauseFor(RETRY_MS);
    }
    const where = place.turnId === "" ? "its begin" : `what comes after ${place.lastSequence}`;
    seen.complaints.push(`a client of turn ${action.name} waited for ${where} in vain`);
  };
  const readOnce = async (
    chat: Client<typeof ChatService>,
    { action, number, dropAfter, place }: Asking,
  ): Promise<Outcome> => {
    const resumes = place.turnId !== "";
    if (resumes) seen.resumes++;
    const reading: Reading = {
      action,
      how: `${resumes ? `resume after ${place.lastSequence}` : "stream"} on ${number}`,
      turnId: place.turnId,
      afterSequence: place.lastSequence,
      events: [],
      end: "cut",
    };
    seen.readings.push(reading);
    const gone = new AbortController();
    let dropped = false;
    let silence: ReturnType<typeof setTimeout> | undefined;
    const heard = (): void => {
      clearTimeout(silence);
      silence = setTimeout(() => gone.abort(), Math.max(1, Math.min(action.patienceMs, untilMs - performance.now())));
    };
    heard();
    try {
      const options = { signal: gone.signal };
      const stream: AsyncIterable<StreamChatResponse | ResumeTurnResponse> = resumes
        ? chat.resumeTurn({ turnId: place.turnId, afterSequence: place.lastSequence }, options)
        : chat.streamChat(requestOf(action), options);
      for await (const response of stream) {
        heard();
        // Same fields, numbers and types.
        const event = response as StreamChatResponse;
        if (event.sequence > 0n) {
          reading.events.push({ event, atMs: Date.now() });
          place.lastSequence = event.sequence;
          if (event.event.case === "turnStarted") {
            reading.turnId = event.event.value.turnId;
            place.turnId = reading.turnId;
          }
          const turn = known.get(action.name);
          if (turn !== undefined) {
            turn.turnId = place.turnId;
            if (event.sequence > turn.lastSequence) turn.lastSequence = event.sequence;
          }
        }
        if (dropAfter !== undefined && reading.events.length >= dropAfter) {
          dropped = true;
          gone.abort();
        }
      }
      reading.end = "ended";
    } catch (error) {
      const reason = infoOf(error);
      if (reason !== "" && !gone.signal.aborted) reading.end = `reason ${reason}`;
      const cursor = cursorOf(error);
      if (cursor !== undefined && place.turnId === "") place.turnId = cursor;
    } finally {
      clearTimeout(silence);
    }
    complainOf(`${reading.how} of turn ${action.name}`, reading.end);
    if (dropped) return "dropped";
    const completed = reading.events.at(-1)?.event.event.case === "turnCompleted";
    return completed || reading.end === "ended" || isOver(reasonOf(reading.end)) ? "over" : "again";
  };
  const askUnary = async (
    chat: Client<typeof ChatService>,
    { action, number, dropAfter, place }: Asking,
  ): Promise<Outcome> => {
    const gone = new AbortController();
    const patience = Math.min(action.patienceMs * UNARY_PATIENCE, untilMs - performance.now());
    const leaves = setTimeout(
      () => gone.abort(),
      dropAfter === undefined ? patience : Math.min(patience, dropAfter * UNARY_EVENT_MS),
    );
    try {
      const answer = await chat.chat(requestOf(action), { signal: gone.signal });
      const { turnId, response, finishReason, tokenUsage } = answer;
      seen.replies.push({ action, turnId, response, finishReason, totalTokens: tokenUsage?.totalTokens ?? 0 });
      const turn = known.get(action.name);
      if (turn !== undefined) turn.turnId = turnId;
      return "over";
    } catch (error) {
      const reason = infoOf(error);
      complainOf(`a unary call on ${number} of turn ${action.name}`, `reason ${reason}`);
      place.turnId = cursorOf(error) ?? place.turnId;
      if (gone.signal.aborted) return dropAfter === undefined ? "again" : "dropped";
      return isOver(reason) ? "over" : "again";
    } finally {
      clearTimeout(leaves);
    }
  };
  /** Repeats a short call, on one replica after the other, until it is answered. */
  const insist = async <T>(
    what: string,
    number: number,
    call: (replica: number, options: CallOptions) => Promise<T>,
  ): Promise<T | undefined> => {
    for (let attempt = 0; performance.now() < untilMs; attempt++) {
      try {
        return await call(number + attempt, { signal: AbortSignal.timeout(CALL_MS) });
      } catch (error) {
        const reason = infoOf(error);
        complainOf(what, `reason ${reason}`);
        if (isOver(reason) || reason === "SESSION_EXISTS") return undefined;
        await pauseFor(RETRY_MS);
      }
    }
    seen.complaints.push(`${what} was never answered`);
    return undefined;
  };

  return {
    seen,
    async turn(action) {
      known.set(action.name, { action, turnId: "", lastSequence: 0n });
      seen.retries += action.copies - 1;
      const copies = Array.from({ length: action.copies }, (_, copy) => action.replica + copy);
      await Promise.all(copies.map((replica) => follow(action, { replica, place: { turnId: "", lastSequence: 0n } })));
    },
    async touch({ kind, name, replica, skipPercent }) {
      const turn = known.get(name);
      if (turn === undefined) return;
      const { turnId, action } = turn;
      if (kind === "retry") {
        seen.retries++;
        await follow({ ...action, dropAfter: undefined }, { replica, place: { turnId: "", lastSequence: 0n } });
      } else if (turnId !== "" && kind === "read") {
        const lastSequence = (turn.lastSequence * BigInt(skipPercent)) / 100n;
        await follow({ ...action, dropAfter: undefined }, { replica, place: { turnId, lastSequence } });
      } else if (turnId !== "") {
        const cancelled = await insist(`a cancel of turn ${name}`, replica, async (number, options) =>
          (await chatOf(world, number)).cancelTurn({ turnId }, options),
        );
        if (cancelled?.turn !== undefined) seen.cancels.push({ turnId, lastSequence: cancelled.turn.lastSequence });
      }
    },
    async createSession(sessionId) {
      await insist("a session's creation", 0, async (number, options) =>
        (await sessionsOf(world, number)).createSession({ sessionId, userId: USER }, options),
      );
    },
    async deleteSession({ session: sessionId, replica }) {
      seen.deletes.set(sessionId, false);
      await insist(`the deletion of session ${sessionId}`, replica, async (number, options) =>
        (await sessionsOf(world, number)).deleteSession({ sessionId }, options),
      );
      seen.deletes.set(sessionId, true);
    },
  };
}

type Outcome = "over" | "dropped" | "again";

interface Asking {
  readonly action: TurnAction;
  readonly number: number;
  readonly dropAfter: number | undefined;
  readonly place: Place;
}

export async function chatOf(world: World, number: number, wire = 1): Promise<Client<typeof ChatService>> {
  const { url } = await world.replica(number);
  return createClient(ChatService, (threeWires[wire] ?? threeWires[1]).transport(url));
}

async function sessionsOf(world: World, number: number): Promise<Client<typeof SessionService>> {
  const { url } = await world.replica(number);
  return createClient(SessionService, threeWires[1].transport(url));
}

function requestOf(action: TurnAction) {
  return {
    userId: USER,
    sessionId: action.session ?? "",
    message: messageOf(action.name),
    agentTeam: action.team,
    onBusy: ON_BUSY[action.onBusy],
    onDisconnect: action.endsWithCall ? OnDisconnect.CANCEL : OnDisconnect.CONTINUE,
    ...(action.keyed ? { idempotencyKey: `key-${action.name}` } : {}),
  };
}

const ON_BUSY = {
  enqueue: OnBusy.ENQUEUE,
  reject: OnBusy.REJECT,
  interrupt: OnBusy.INTERRUPT,
  rollback: OnBusy.ROLLBACK,
} as const;

/** Our own word for an error; empty: it is none of ours. */
function infoOf(error: unknown): string {
  const connectError = ConnectError.from(error);
  const [info] = connectError.findDetails(ErrorInfoSchema);
  if (info === undefined && connectError.code === Code.Unimplemented) return "INTERNAL";
  return info?.reason ?? "";
}

function cursorOf(error: unknown): string | undefined {
  return ConnectError.from(error).findDetails(TurnCursorSchema)[0]?.turnId;
}

/** Whether there is no sense in trying again. */
function isOver(reason: string): boolean {
  return FINAL.has(reason) || NEVER.has(reason);
}

function reasonOf(end: ReadingEnd): string {
  return end.startsWith("reason ") ? end.slice("reason ".length) : "";
}
