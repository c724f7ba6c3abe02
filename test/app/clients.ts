import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { ChatService, type StreamChatResponse } from "../../gen/parley/chat/v1/chat_service_pb.js";
import type { Message } from "../../gen/parley/chat/v1/message_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";

/** The user of all these tests. */
export const USER = "u1";

/** What a service's caller does, over gRPC. */
export interface Caller {
  readonly chat: Client<typeof ChatService>;
  readonly sessions: Client<typeof SessionService>;
  /** Makes a session and returns its id. */
  createSession(): Promise<string>;
  /** Runs a turn and returns the reply. */
  say(sessionId: string, message: string): Promise<string>;
  /** The history's texts, oldest first. */
  history(sessionId: string): Promise<string[]>;
  messages(sessionId: string): Promise<Message[]>;
}

export function callerOf({ url }: { readonly url: string }): Caller {
  const transport = createGrpcTransport({ baseUrl: url });
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
  /** Text deltas so far, put together. */
  text(): string;
  /** How it ended: undefined for an OK, else what was thrown. */
  readonly end: Promise<unknown>;
}

/** Reads a stream in the background. */
export function read(stream: AsyncIterable<StreamChatResponse>): Reading {
  const events: StreamChatResponse[] = [];
  const drain = async (): Promise<undefined> => {
    for await (const response of stream) if (response.sequence > 0n) events.push(response);
  };
  return {
    events,
    text: () => events.map(({ event }) => (event.case === "textDelta" ? event.value.text : "")).join(""),
    end: drain().catch((error: unknown) => error),
  };
}

/** The turn's id, from its first event. */
export function turnIdOf({ events }: Reading): string {
  const event = events[0]?.event;
  return event?.case === "turnStarted" ? event.value.turnId : "";
}
