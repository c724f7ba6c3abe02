import { type Client, createClient } from "@connectrpc/connect";
import { expect, vi } from "vitest";
import { ChatService, type StreamChatResponse } from "../../gen/parley/chat/v1/chat_service_pb.js";
import type { Message } from "../../gen/parley/chat/v1/message_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import { threeWires, type Wire } from "../rpc/wires.ts";

/** The user of all these tests. */
export const USER = "u1";

/** What a service's caller does. */
export interface Caller {
  readonly chat: Client<typeof ChatService>;
  readonly sessions: Client<typeof SessionService>;
  /** Makes a session and returns its id. */
  createSession(): Promise<string>;
  /** Begins a turn of an agent team and reads it. */
  stream(sessionId: string, message: string, agentTeam: string): Reading;
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
    stream: (sessionId, message, agentTeam) => read(chat.streamChat({ sessionId, message, userId: USER, agentTeam })),
    async say(sessionId, message) {
      return (await chat.chat({ sessionId, message, userId: USER })).response;
    },
    messages,
    history: async (sessionId) => (await messages(sessionId)).map(({ content }) => content),
  };
}

/** A stream that is being read. */
export interface Reading {
  /** What came so far; not what is in no log (sequence 0). */
  readonly events: StreamChatResponse[];
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
export function expectInLog({ events }: Reading, log: readonly TurnLogEntry[]): void {
  expect(events.length).toBeGreaterThan(0);
  expect(log.map(({ event }) => event?.sequence)).toEqual(log.map((_, index) => BigInt(index + 1)));
  expect(events).toEqual(log.slice(0, events.length).map(({ event }) => event));
}

/** Reads a stream in the background. */
function read(stream: AsyncIterable<StreamChatResponse>): Reading {
  const events: StreamChatResponse[] = [];
  const places: number[] = [];
  const drain = async (): Promise<undefined> => {
    for await (const response of stream) {
      if (response.sequence > 0n) events.push(response);
      if (response.event.case === "turnQueued") places.push(response.event.value.position);
    }
  };
  return {
    events,
    places,
    text: () => events.map(({ event }) => (event.case === "textDelta" ? event.value.text : "")).join(""),
    end: drain().catch((error: unknown) => error),
  };
}

/** The turn's id, from its first event. */
export function turnIdOf({ events }: Reading): string {
  const event = events[0]?.event;
  return event?.case === "turnStarted" ? event.value.turnId : "";
}
