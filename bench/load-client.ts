import { fromBinary } from "@bufbuild/protobuf";
import { ChatResponseSchema } from "../gen/parley/chat/v1/chat_service_pb.js";
import { chatBytes, connectGrpc, type GrpcConnection, type RequestBytes, resumeBytes } from "./grpc-frames.ts";
import type { LoadCommand, LoadResult } from "./load-commands.ts";
import { readTextDelta, readTurnId } from "./response-fields.ts";
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
const RESUME_TURN = "/parley.chat.v1.ChatService/ResumeTurn";

const pools = new Map<string, GrpcConnection[]>();
const openStreams: Promise<void>[] = [];
/** Turns of the streams that were opened last. */
let openTurnIds: string[] = [];

process.on("message", (command: LoadCommand) => {
  run(command).then(
    (result) => process.send?.({ ...EMPTY_RESULT, ...result }),
    (error: unknown) => process.send?.({ failure: String(error) }),
  );
});
process.on("disconnect", () => process.exit());
process.send?.({ port: 0 });

const EMPTY_RESULT: LoadResult = {
  sessionIds: [],
  turnsInTime: 0,
  turns: 0,
  firstTextMs: [],
  firstEventMs: [],
  events: 0,
};

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
    case "follow":
      return follow(command);
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
  const { baseUrl, rpc, model, clients, durationMs, sessionIds, readers } = command;
  const pool = clientsOf(baseUrl, LOAD_CONNECTIONS);
  const readerPool = readers === undefined ? [] : clientsOf(readers.baseUrl, LOAD_CONNECTIONS);
  const read: StreamRead[] = [];
  let followed = 0;
  let turnsInTime = 0;
  let turns = 0;
  const endTime = performance.now() + durationMs;
  await eachAtOnce(clients, clients, async (index) => {
    const connection = at(pool, index);
    const ownSessionIds = sessionIds.filter((_, place) => place % clients === index);
    const requests = (ownSessionIds.length > 0 ? ownSessionIds : [""]).map((id) => turnOf(model, index, id));
    for (let turn = 0; performance.now() < endTime; turn++) {
      if (rpc === "Chat") {
        await chat(connection, at(requests, turn));
      } else {
        const following: Promise<StreamRead>[] = [];
        const follow = (turnId: string): void => {
          for (let reader = 0; reader < (readers?.perTurn ?? 0); reader++) {
            following.push(readStream(at(readerPool, index + reader), RESUME_TURN, resumeBytes(turnId)));
          }
        };
        read.push(await readStream(connection, STREAM_CHAT, at(requests, turn), { onTurn: follow }));
        for (const { events } of await Promise.all(following)) followed += events;
      }
      turns++;
      if (performance.now() <= endTime) turnsInTime++;
    }
  });
  const own = read.reduce((sum, { events }) => sum + events, 0);
  return {
    turns,
    turnsInTime,
    firstTextMs: ascending(read.map(({ firstTextMs }) => firstTextMs)),
    firstEventMs: ascending(read.map(({ firstEventMs }) => firstEventMs)),
    events: readers === undefined ? own : followed,
  };
}

async function turns({ baseUrl, sessionIds, turns }: LoadCommand & { kind: "turns" }): Promise<Partial<LoadResult>> {
  const connection = at(clientsOf(baseUrl, LOAD_CONNECTIONS), 0);
  const firstEventMs: number[] = [];
  for (let turn = 0; turn < turns; turn++) {
    const request = turnOf(MODEL_NAMES.burst, turn % sessionIds.length, at(sessionIds, turn));
    firstEventMs.push((await readStream(connection, STREAM_CHAT, request)).firstEventMs);
  }
  return { turns, firstEventMs: ascending(firstEventMs) };
}

async function open({ baseUrl, streams, sessionIds }: LoadCommand & { kind: "open" }): Promise<Partial<LoadResult>> {
  const before = openStreams.length;
  const pool = clientsOf(baseUrl, Math.ceil((before + streams) / IDLE_STREAMS_PER_CONNECTION));
  openTurnIds = [];
  await eachAtOnce(streams, OPENING_AT_ONCE, async (index) => {
    const sessionId = sessionIds[before + index] ?? "";
    const request = turnOf(MODEL_NAMES.hold, before + index, sessionId);
    const firstText = Promise.withResolvers<void>();
    stayOpen(firstText, (hooks) => readStream(at(pool, before + index), STREAM_CHAT, request, hooks));
    await firstText.promise;
  });
  return { turns: streams };
}

async function follow({ baseUrl, turns }: LoadCommand & { kind: "follow" }): Promise<Partial<LoadResult>> {
  const pool = clientsOf(baseUrl, LOAD_CONNECTIONS);
  const firstEventMs: number[] = [];
  for (const [index, turnId] of openTurnIds.slice(0, turns).entries()) {
    const startTime = performance.now();
    const firstText = Promise.withResolvers<void>();
    stayOpen(firstText, (hooks) => {
      const onTurn = (): void => void firstEventMs.push(performance.now() - startTime);
      return readStream(at(pool, index), RESUME_TURN, resumeBytes(turnId), { ...hooks, onTurn });
    });
    await firstText.promise;
  }
  return { turns: firstEventMs.length, firstEventMs: ascending(firstEventMs) };
}

/** Opens a stream that {@link openStreams} waits for; `firstText` rejects where it ends before. */
function stayOpen(firstText: PromiseWithResolvers<void>, read: (hooks: StreamHooks) => Promise<StreamRead>): void {
  const onTurn = (turnId: string): void => void openTurnIds.push(turnId);
  const ended = read({ onTurn, onFirstText: firstText.resolve }).then(() => undefined);
  ended.catch(firstText.reject);
  openStreams.push(ended);
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

/** A stream that was read to its end. */
interface StreamRead {
  readonly events: number;
  readonly firstEventMs: number;
  readonly firstTextMs: number;
}

/** Told as a stream goes on. */
interface StreamHooks {
  onTurn?(turnId: string): void;
  onFirstText?(): void;
}

/** Reads a stream to its end. */
async function readStream(
  connection: GrpcConnection,
  path: string,
  request: RequestBytes,
  hooks: StreamHooks = {},
): Promise<StreamRead> {
  const startTime = performance.now();
  let events = 0;
  let firstEventMs = 0;
  let firstTextMs = 0;
  let text = "";
  await connection.call(path, request, (message) => {
    if (++events === 1) {
      firstEventMs = performance.now() - startTime;
      if (hooks.onTurn !== undefined) hooks.onTurn(readTurnId(message) ?? "");
    }
    const delta = readTextDelta(message);
    if (delta === undefined) return;
    if (text === "") {
      firstTextMs = performance.now() - startTime;
      hooks.onFirstText?.();
    }
    text += delta;
  });
  checkReply(text);
  return { events, firstEventMs, firstTextMs };
}

function ascending(values: number[]): number[] {
  return values.sort((a, b) => a - b);
}

function checkReply(text: string): void {
  if (text !== REPLY) throw new Error(`a wrong reply of ${text.length} characters`);
}

function turnOf(agentTeam: ModelName, index: number, sessionId: string): RequestBytes {
  return chatBytes({ sessionId, userId: `bench-${index % USERS}`, agentTeam, message: MESSAGE });
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
