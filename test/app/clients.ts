import { type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { type CallOptions, type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { expect, vi } from "vitest";
import {
  ChatService,
  type ResumeTurnResponse,
  ResumeTurnResponseSchema,
  type StreamChatRequestSchema,
  type StreamChatResponse,
  StreamChatResponseSchema,
} from "../../gen/parley/chat/v1/chat_service_pb.js";
import type { Message } from "../../gen/parley/chat/v1/message_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import type { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import type { SimulatedMessage, SimulatedModel } from "../../src/providers/simulated-model.ts";
import { threeWires, type Wire } from "../rpc/wires.ts";

/** The user of all these tests. */
export const USER = "u1";

/** What else a turn may be asked for with. */
export type TurnFields = Pick<
  MessageInitShape<typeof StreamChatRequestSchema>,
  "approvals" | "idempotencyKey" | "onBusy" | "onDisconnect" | "maxTokens" | "userId"
>;

/** What a service's caller does. */
export interface Caller {
  readonly chat: Client<typeof ChatService>;
  readonly sessions: Client<typeof SessionService>;
  /** Makes a session and returns its id. */
  createSession(): Promise<string>;
  /** Begins a turn of an agent team and reads it. */
  stream(sessionId: string, message: string, agentTeam: string, fields?: TurnFields, options?: CallOptions): Reading;
  /** Reads a turn from where somebody stopped. */
  resume(turnId: string, afterSequence?: bigint, options?: CallOptions): Reading;
  /** Runs a turn and returns the reply. */
  say(sessionId: string, message: string): Promise<string>;
  /** The history's texts, oldest first. */
  history(sessionId: string): Promise<string[]>;
  messages(sessionId: string): Promise<Message[]>;
}

/** A caller of a service, over gRPC unless it says otherwise. */
export function callerOf({ url }: { readonly url: string }, wire: Wire = threeWires[1]): Caller {
  const transport = wire.transport(url);
  const chat = createClient(ChatService, transport);
  const sessions = createClient(SessionService, transport);
  const messages = async (sessionId: string): Promise<Message[]> =>
    (await sessions.listMessages({ sessionId, pageSize: 200 })).messages;
  return {
    chat,
    sessions,
    async createSession() {
      const { session } = await sessions.createSession({ userId: USER });
      return session?.sessionId ?? "";
    },
    stream: (sessionId, message, agentTeam, fields = {}, options = {}) =>
      read(chat.streamChat({ sessionId, message, userId: USER, agentTeam, ...fields }, options)),
    resume: (turnId, afterSequence = 0n, options = {}) => read(chat.resumeTurn({ turnId, afterSequence }, options)),
    async say(sessionId, message) {
      return (await chat.chat({ sessionId, message, userId: USER })).response;
    },
    messages,
    history: async (sessionId) => (await messages(sessionId)).map(({ content }) => content),
  };
}

/** What a reader of a turn gets, from whichever RPC: the same fields, numbers and types. */
export type TurnResponse = StreamChatResponse | ResumeTurnResponse;

/** A stream that is being read. */
export interface Reading {
  /** What came so far; not what is in no log (sequence 0). */
  readonly events: TurnResponse[];
  /** Signs of life so far. */
  readonly heartbeats: number;
  /** The places in the queue that it was told, in order. */
  readonly places: number[];
  /** Text deltas so far, put together. */
  text(): string;
  /** How it ended: undefined for an OK, else what was thrown. */
  readonly end: Promise<unknown>;
}

/** Resolves when a turn has begun to speak. */
export async function spoken(reading: Reading): Promise<void> {
  await vi.waitFor(() => expect(reading.text()).not.toBe(""), { timeout: 20_000 });
}

/** Checks that what was read is what the log has, from its first entry on: numbered without a gap, and nothing unsaid. */
export function expectInLog({ events }: Pick<Reading, "events">, log: readonly TurnLogEntry[]): void {
  expect(events.length).toBeGreaterThan(0);
  expect(log.map(({ event }) => event?.sequence)).toEqual(log.map((_, index) => BigInt(index + 1)));
  expect(events.map(bytesOf)).toEqual(log.slice(0, events.length).map(({ event }) => event && bytesOf(event)));
}

/** An event as it stands on the wire, in hexadecimal. */
export function bytesOf(event: TurnResponse): string {
  if (event.$typeName === "parley.chat.v1.StreamChatResponse") return toBinary(StreamChatResponseSchema, event).toHex();
  return toBinary(ResumeTurnResponseSchema, event).toHex();
}

/**
 * Checks that events are a whole turn: numbered 1, 2, 3 …, ended once, at the end, and each message is what its deltas say
 * that were not voided. Returns the messages.
 */
export function expectWhole(events: readonly TurnResponse[]): string[] {
  expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, index) => BigInt(index + 1)));
  const ends = events.flatMap(({ sequence, event }) => (event.case === "turnCompleted" ? [sequence] : []));
  expect(ends).toEqual([BigInt(events.length)]);
  const messages: string[] = [];
  let said: { sequence: bigint; text: string }[] = [];
  for (const { sequence, event } of events) {
    if (event.case === "textDelta") said.push({ sequence, text: event.value.text });
    if (event.case === "stepRestarted") {
      const { discardTextAfterSequence: kept } = event.value;
      said = said.filter((one) => one.sequence <= kept);
    }
    if (event.case !== "messageCompleted") continue;
    expect(said.map(({ text }) => text).join("")).toBe(event.value.content);
    messages.push(event.value.content);
    said = [];
  }
  return messages;
}

/** The cases of events, in order, neighbouring ones that are the same once. */
export function casesOf(events: readonly TurnResponse[]): (string | undefined)[] {
  return events.map(({ event }) => event.case).filter((name, index, all) => name !== all[index - 1]);
}

/** The error that a reading ends with; it must end with one. */
export async function errorOf({ end }: Pick<Reading, "end">): Promise<ConnectError> {
  const error = await end;
  expect(error).toBeInstanceOf(ConnectError);
  return error as ConnectError;
}

/** Why a turn ended, as its events say. */
export function finishOf(events: readonly TurnResponse[]): FinishReason | undefined {
  const event = events.at(-1)?.event;
  return event?.case === "turnCompleted" ? event.value.finishReason : undefined;
}

/** Reads a stream in the background. */
function read(stream: AsyncIterable<TurnResponse>): Reading {
  const events: TurnResponse[] = [];
  const places: number[] = [];
  let heartbeats = 0;
  const drain = async (): Promise<undefined> => {
    for await (const response of stream) {
      if (response.sequence > 0n) events.push(response);
      if (response.event.case === "heartbeat") heartbeats++;
      if (response.event.case === "turnQueued") places.push(response.event.value.position);
    }
  };
  return {
    events,
    places,
    get heartbeats() {
      return heartbeats;
    },
    text: () => events.map(({ event }) => (event.case === "textDelta" ? event.value.text : "")).join(""),
    end: drain().catch((error: unknown) => error),
  };
}

/** The turn's id, from its first event. */
export function turnIdOf({ events }: Pick<Reading, "events">): string {
  const event = events[0]?.event;
  return event?.case === "turnStarted" ? event.value.turnId : "";
}

/**
 * Runs a turn as a client does that takes UNAVAILABLE for what it says: it calls again, with its key while it has no turn,
 * then with its cursor. Throws whatever else a call ends with, and when it is at it for too long.
 */
export async function persist(
  message: string,
  {
    agentTeam,
    callerFor,
    onTrouble = () => undefined,
    deadlineMs = 45_000,
  }: {
    agentTeam: string;
    /** Whom to call the n-th time. */
    callerFor(attempt: number): Caller;
    /** Called with the error of each call that did not come to the turn's end. */
    onTrouble?(error: ConnectError, events: readonly TurnResponse[]): void;
    /** Default 45,000: short of a test's own. */
    deadlineMs?: number;
  },
): Promise<TurnResponse[]> {
  const untilMs = performance.now() + deadlineMs;
  const events: TurnResponse[] = [];
  for (let attempt = 0; performance.now() < untilMs; attempt++) {
    const caller = callerFor(attempt);
    const turnId = turnIdOf({ events });
    const options = { timeoutMs: Math.ceil(untilMs - performance.now()) };
    const reading =
      turnId === ""
        ? caller.stream("", message, agentTeam, { idempotencyKey: message.replaceAll(" ", "-") }, options)
        : caller.resume(turnId, BigInt(events.length), options);
    const error = await reading.end;
    events.push(...reading.events);
    if (error === undefined) return events;
    if (!(error instanceof ConnectError) || error.code !== Code.Unavailable) throw error;
    onTrouble(error, events);
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
  throw new Error(`${message}: does not come to an end`);
}

/** A client waits this long before it calls again, in milliseconds. */
const RETRY_MS = 100;

/**
 * Checks that no model call of a turn was made again but the newest, cut one: as many different calls as it takes, and none
 * behind the next one. Returns how many were made again.
 */
export function expectNoneRepeated(model: SimulatedModel, message: string, expected: number): number {
  const isOfTurn = (sent: SimulatedMessage): boolean => sent.role === "user" && sent.content === message;
  const prompts = model.calls
    .filter(({ messages }) => messages.some(isOfTurn))
    .map(({ messages }) => JSON.stringify(messages));
  const inOrder = prompts.filter((prompt, index) => prompt !== prompts[index - 1]);
  expect(inOrder).toHaveLength(expected);
  expect(new Set(inOrder).size).toBe(expected);
  return prompts.length - expected;
}
