import { fromBinary } from "@bufbuild/protobuf";
import { ChatResponseSchema } from "../gen/parley/chat/v1/chat_service_pb.js";
import { connectGrpc, type GrpcConnection, type RequestBytes, requestBytes } from "./grpc-frames.ts";
import type { LoadCommand, LoadResult } from "./load-commands.ts";
import { readTextDelta } from "./text-delta.ts";
import { MESSAGE, MODEL_NAMES, type ModelName, REPLY } from "./workload.ts";

/**
 * The clients, as a process of their own: gRPC over h2c, several connections. Every reply is compared with what the
 * model said, so that nothing is fast because it is wrong. A generated client would cost a third of what the servers do;
 * frames made by hand cost a tenth of that (`grpc-frames.ts`). Commands come by IPC ({@link LoadCommand}), one at a time.
 */

const LOAD_CONNECTIONS = 8;
/** A server admits 1,000 streams to a connection by default; half of that leaves room. */
const IDLE_STREAMS_PER_CONNECTION = 500;
/** Streams and fills that are begun at the same time. */
const OPENING_AT_ONCE = 64;
/** Session n belongs to user n modulo this, which is also the number of clients under load. */
const USERS = 64;

const CHAT = "/parley.chat.v1.ChatService/Chat";
const STREAM_CHAT = "/parley.chat.v1.ChatService/StreamChat";

const pools = new Map<string, GrpcConnection[]>();
const openStreams: Promise<void>[] = [];

process.on("message", (command: LoadCommand) => {
  run(command).then(
    (result) => process.send?.({ ...EMPTY_RESULT, ...result }),
    (error: unknown) => process.send?.({ failure: String(error) }),
  );
});
process.on("disconnect", () => process.exit());
process.send?.({ port: 0 });

const EMPTY_RESULT: LoadResult = { sessionIds: [], turnsInTime: 0, turns: 0, firstTextMs: [] };

async function run(command: LoadCommand): Promise<Partial<LoadResult>> {
  switch (command.kind) {
    case "fill":
      return fill(command);
    case "load":
      return load(command);
    case "turns":
      return turns(command);
    case "open":
      return open(command);
    case "drain": {
      const ended = openStreams.splice(0);
      await Promise.all(ended);
      return { turns: ended.length };
    }
  }
}

async function fill({ baseUrl, sessions, turns }: LoadCommand & { kind: "fill" }): Promise<Partial<LoadResult>> {
  const pool = clientsOf(baseUrl, LOAD_CONNECTIONS);
  const sessionIds = new Array<string>(sessions).fill("");
  await eachAtOnce(sessions, OPENING_AT_ONCE, async (index) => {
    let sessionId = "";
    for (let turn = 0; turn < turns; turn++) {
      const response = await chat(at(pool, index), turnOf(MODEL_NAMES.burst, index, sessionId));
      sessionId = response.sessionId;
    }
    sessionIds[index] = sessionId;
  });
  return { sessionIds, turns: sessions * turns };
}

async function load(command: LoadCommand & { kind: "load" }): Promise<Partial<LoadResult>> {
  const { baseUrl, rpc, model, clients, durationMs, sessionIds } = command;
  const pool = clientsOf(baseUrl, LOAD_CONNECTIONS);
  const firstTextMs: number[] = [];
  let turnsInTime = 0;
  let turns = 0;
  const endTime = performance.now() + durationMs;
  await eachAtOnce(clients, clients, async (index) => {
    const connection = at(pool, index);
    const ownSessionIds = sessionIds.filter((_, place) => place % clients === index);
    const requests = (ownSessionIds.length > 0 ? ownSessionIds : [""]).map((id) => turnOf(model, index, id));
    for (let turn = 0; performance.now() < endTime; turn++) {
      if (rpc === "Chat") await chat(connection, at(requests, turn));
      else firstTextMs.push(await readStream(connection, at(requests, turn)));
      turns++;
      if (performance.now() <= endTime) turnsInTime++;
    }
  });
  return { turnsInTime, turns, firstTextMs: firstTextMs.sort((a, b) => a - b) };
}

async function turns({ baseUrl, sessionIds, turns }: LoadCommand & { kind: "turns" }): Promise<Partial<LoadResult>> {
  const connection = at(clientsOf(baseUrl, LOAD_CONNECTIONS), 0);
  for (let turn = 0; turn < turns; turn++) {
    await readStream(connection, turnOf(MODEL_NAMES.burst, turn % sessionIds.length, at(sessionIds, turn)));
  }
  return { turns };
}

async function open({ baseUrl, streams, sessionIds }: LoadCommand & { kind: "open" }): Promise<Partial<LoadResult>> {
  const before = openStreams.length;
  const pool = clientsOf(baseUrl, Math.ceil((before + streams) / IDLE_STREAMS_PER_CONNECTION));
  await eachAtOnce(streams, OPENING_AT_ONCE, async (index) => {
    const sessionId = sessionIds[before + index] ?? "";
    const request = turnOf(MODEL_NAMES.hold, before + index, sessionId);
    const firstText = Promise.withResolvers<void>();
    const ended = readStream(at(pool, before + index), request, firstText.resolve).then(() => undefined);
    ended.catch(firstText.reject);
    openStreams.push(ended);
    await firstText.promise;
  });
  return { turns: streams };
}

async function chat(connection: GrpcConnection, request: RequestBytes): Promise<{ sessionId: string }> {
  let answer = new Uint8Array() as Uint8Array;
  await connection.call(CHAT, request, (message) => {
    answer = message;
  });
  const response = fromBinary(ChatResponseSchema, answer);
  checkReply(response.response);
  return response;
}

/** Reads a stream to its end; returns the time to its first text in milliseconds. */
async function readStream(
  connection: GrpcConnection,
  request: RequestBytes,
  onFirstText?: () => void,
): Promise<number> {
  const startTime = performance.now();
  let firstTextMs = 0;
  let text = "";
  await connection.call(STREAM_CHAT, request, (message) => {
    const delta = readTextDelta(message);
    if (delta === undefined) return;
    if (text === "") {
      firstTextMs = performance.now() - startTime;
      onFirstText?.();
    }
    text += delta;
  });
  checkReply(text);
  return firstTextMs;
}

function checkReply(text: string): void {
  if (text !== REPLY) throw new Error(`a wrong reply of ${text.length} characters`);
}

function turnOf(agentTeam: ModelName, index: number, sessionId: string): RequestBytes {
  return requestBytes({ sessionId, userId: `bench-${index % USERS}`, agentTeam, message: MESSAGE });
}

/** Connections, kept from command to command. */
function clientsOf(baseUrl: string, connections: number): GrpcConnection[] {
  const pool = pools.get(baseUrl) ?? [];
  pools.set(baseUrl, pool);
  while (pool.length < connections) pool.push(connectGrpc(baseUrl));
  return pool;
}

/** Runs work 0 … count-1, at most `atOnce` at the same time; rejects with the first failure. */
async function eachAtOnce(count: number, atOnce: number, work: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async () => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: Math.min(count, atOnce) }, worker));
}

function at<T>(items: readonly T[], index: number): T {
  const item = items[index % items.length];
  if (item === undefined) throw new Error("nothing to choose from");
  return item;
}
