import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { ErrorInfoSchema } from "../../../gen/google/rpc/error_details_pb.js";
import { ChatService, OnDisconnect } from "../../../gen/parley/chat/v1/chat_service_pb.js";
import { TurnState } from "../../../gen/parley/chat/v1/turn_pb.js";

// Runs in a browser. What each case saw is for the test to compare.

declare global {
  // Node's types know of no page.
  var location: { readonly origin: string };
  // The page's one name.
  var probe: (protocol: "connect" | "grpc-web", name: keyof typeof cases) => Promise<unknown>;
}

type Chat = ReturnType<typeof createChat>;

function createChat(protocol: "connect" | "grpc-web") {
  const options = { baseUrl: location.origin, useBinaryFormat: protocol === "grpc-web" };
  return createClient(
    ChatService,
    protocol === "connect" ? createConnectTransport(options) : createGrpcWebTransport(options),
  );
}

const stalled = { message: "hello", userId: "u1", agentTeam: "stall" };

const cases = {
  async deadline(chat: Chat) {
    let turnId = "";
    const error = await errorOf(async () => {
      for await (const { event } of chat.streamChat(stalled, { timeoutMs: 1_000 }))
        if (event.case === "turnStarted") turnId = event.value.turnId;
    });
    const { turn } = await chat.getTurn({ turnId });
    await chat.cancelTurn({ turnId });
    return { code: error.code, running: turn?.state === TurnState.RUNNING };
  },

  async cancellation(chat: Chat) {
    const stop = new AbortController();
    const request = { ...stalled, onDisconnect: OnDisconnect.CANCEL };
    let turnId = "";
    const error = await errorOf(async () => {
      for await (const { event } of chat.streamChat(request, { signal: stop.signal })) {
        if (event.case === "turnStarted") turnId = event.value.turnId;
        stop.abort();
      }
    });
    for (;;) {
      const { turn } = await chat.getTurn({ turnId });
      if (turn?.state === TurnState.FINISHED) return { code: error.code, reason: turn.finishReason };
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  },

  async largeMessages(chat: Chat) {
    const text = "🦜".repeat(10_000);
    const { response } = await chat.chat({ message: text, userId: "u1", agentTeam: "roomy" });
    const error = await errorOf(() => chat.chat({ message: "x".repeat(1_048_576), userId: "u1" }));
    const { response: after } = await chat.chat({ message: "hello", userId: "u1" });
    return { replied: response.includes(text), ...refusalOf(error), after: after.includes("hello") };
  },

  async emptyMessages(chat: Chat) {
    return refusalOf(await errorOf(() => chat.chat({})));
  },

  /** As many streams at a time as a page may ask for, on the browser's one connection where it speaks HTTP/2. */
  async manyStreams(chat: Chat) {
    const stop = new AbortController();
    const request = { ...stalled, onDisconnect: OnDisconnect.CANCEL };
    const all = Array.from({ length: 200 }, () => {
      const events = chat.streamChat(request, { signal: stop.signal })[Symbol.asyncIterator]();
      return { events, begun: events.next() };
    });
    const firsts = await Promise.all(all.map(({ begun }) => begun));
    stop.abort();
    const ends = await Promise.all(all.map(({ events }) => errorOf(() => drain(events))));
    return {
      begun: firsts.filter(({ value }) => value?.event.case === "turnStarted").length,
      cancelled: ends.filter(({ code }) => code === Code.Canceled).length,
      after: (await chat.chat({ message: "hello", userId: "u1" })).response.includes("hello"),
    };
  },
};

globalThis.probe = (protocol, name) => cases[name](createChat(protocol));

async function drain(events: AsyncIterator<unknown>): Promise<void> {
  while (!(await events.next()).done);
}

async function errorOf(call: () => Promise<unknown>): Promise<ConnectError> {
  try {
    await call();
  } catch (error) {
    return ConnectError.from(error);
  }
  throw new Error("the call was not refused");
}

function refusalOf(error: ConnectError) {
  return { code: error.code, reason: error.findDetails(ErrorInfoSchema)[0]?.reason };
}
