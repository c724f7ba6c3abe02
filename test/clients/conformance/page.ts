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
  var probe: (protocol: "connect" | "grpc-web", name: keyof typeof cases, count: number) => Promise<unknown>;
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
    return {
      unary: refusalOf(await errorOf(() => chat.chat({}))),
      streamed: refusalOf(await errorOf(() => drain(chat.streamChat({})[Symbol.asyncIterator]()))),
    };
  },

  async headersAndCompression(chat: Chat) {
    const text = "compress-me-".repeat(800);
    performance.clearResourceTimings();
    let requestId: string | null = null;
    const headers = { "x-request-id": "probe-1" };
    const onHeader = (header: Headers): void => {
      requestId = header.get("x-request-id");
    };
    const { response } = await chat.chat({ message: text, userId: "u1" }, { headers, onHeader });
    const [call] = timedCalls();
    const compressed = call !== undefined && call.encodedBodySize < call.decodedBodySize / 2;
    return { replied: response.includes(text), requestId, compressed };
  },

  /** Streams that are all open at a time, and then broken off. */
  async brokenStreams(chat: Chat, count: number) {
    const stop = new AbortController();
    const request = { ...stalled, onDisconnect: OnDisconnect.CANCEL };
    const all = Array.from({ length: count }, () => {
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

  /** Streams that end by themselves; how many of them the browser had open at a time. */
  async wholeStreams(chat: Chat, count: number) {
    performance.clearResourceTimings();
    performance.setResourceTimingBufferSize(2_000);
    const lasts = await Promise.all(
      Array.from({ length: count }, async () => {
        let last: string | undefined;
        for await (const { event } of chat.streamChat({ message: "hello", userId: "u1" })) last = event.case;
        return last;
      }),
    );
    return { whole: lasts.filter((last) => last === "turnCompleted").length, atOnce: mostAtOnce() };
  },
};

globalThis.probe = (protocol, name, count) => cases[name](createChat(protocol), count);

/** What the browser tells of the calls that have ended: times in milliseconds, sizes in bytes. */
interface TimedCall {
  readonly requestStart: number;
  readonly responseEnd: number;
  readonly encodedBodySize: number;
  readonly decodedBodySize: number;
}

function timedCalls(): readonly TimedCall[] {
  return performance.getEntriesByType("resource") as unknown as TimedCall[];
}

/** The most calls that were open at a time. */
function mostAtOnce(): number {
  const changes = timedCalls().flatMap(({ requestStart, responseEnd }) => [
    { atMs: requestStart, by: 1 },
    { atMs: responseEnd, by: -1 },
  ]);
  let open = 0;
  let most = 0;
  for (const { by } of changes.sort((a, b) => a.atMs - b.atMs || a.by - b.by)) {
    open += by;
    most = Math.max(most, open);
  }
  return most;
}

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
