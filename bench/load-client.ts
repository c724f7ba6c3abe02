import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { ChatService } from "../gen/parley/chat/v1/chat_service_pb.js";
import type { LoadCommand, LoadResult } from "./load-commands.ts";
import { MESSAGE, MODEL_NAMES, type ModelName, REPLY } from "./workload.ts";

/**
 * The clients, as a process of their own: gRPC over h2c, several connections. Every reply is compared with what the
 * model said, so that nothing is fast because it is wrong. Commands come by IPC ({@link LoadCommand}), one at a time.
 */

const LOAD_CONNECTIONS = 8;
/** A server admits 1,000 streams to a connection by default; half of that leaves room. */
const IDLE_STREAMS_PER_CONNECTION = 500;
/** Streams and fills that are begun at the same time. */
const OPENING_AT_ONCE = 64;
/** Session n belongs to user n modulo this, which is also the number of clients under load. */
const USERS = 64;

type Chat = Client<typeof ChatService>;
interface TurnRequest {
  readonly sessionId: string;
  readonly userId: string;
  readonly agentTeam: ModelName;
  readonly message: string;
}

const pools = new Map<string, Chat[]>();
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
    const request = turnOf(MODEL_NAMES.burst, index);
    let sessionId = "";
    for (let turn = 0; turn < turns; turn++) {
      const response = await at(pool, index).chat({ ...request, sessionId });
      checkReply(response.response);
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
    const client = at(pool, index);
    const ownSessionIds = sessionIds.filter((_, place) => place % clients === index);
    let request = turnOf(model, index);
    for (let turn = 0; performance.now() < endTime; turn++) {
      if (ownSessionIds.length > 0) request = { ...request, sessionId: at(ownSessionIds, turn) };
      if (rpc === "Chat") checkReply((await client.chat(request)).response);
      else firstTextMs.push(await readStream(client, request));
      turns++;
      if (performance.now() <= endTime) turnsInTime++;
    }
  });
  return { turnsInTime, turns, firstTextMs: firstTextMs.sort((a, b) => a - b) };
}

async function turns({ baseUrl, sessionIds, turns }: LoadCommand & { kind: "turns" }): Promise<Partial<LoadResult>> {
  const client = at(clientsOf(baseUrl, LOAD_CONNECTIONS), 0);
  for (let turn = 0; turn < turns; turn++) {
    await readStream(client, {
      ...turnOf(MODEL_NAMES.burst, turn % sessionIds.length),
      sessionId: at(sessionIds, turn),
    });
  }
  return { turns };
}

async function open({ baseUrl, streams, sessionIds }: LoadCommand & { kind: "open" }): Promise<Partial<LoadResult>> {
  const before = openStreams.length;
  const pool = clientsOf(baseUrl, Math.ceil((before + streams) / IDLE_STREAMS_PER_CONNECTION));
  await eachAtOnce(streams, OPENING_AT_ONCE, async (index) => {
    const sessionId = sessionIds[before + index] ?? "";
    const request = { ...turnOf(MODEL_NAMES.hold, before + index), sessionId };
    const firstText = Promise.withResolvers<void>();
    const ended = readStream(at(pool, before + index), request, firstText.resolve).then(() => undefined);
    ended.catch(firstText.reject);
    openStreams.push(ended);
    await firstText.promise;
  });
  return { turns: streams };
}

/** Reads a stream to its end; returns the time to its first text in milliseconds. */
async function readStream(client: Chat, request: TurnRequest, onFirstText?: () => void): Promise<number> {
  const startTime = performance.now();
  let firstTextMs = 0;
  let text = "";
  for await (const { event } of client.streamChat(request)) {
    if (event.case !== "textDelta") continue;
    if (text === "") {
      firstTextMs = performance.now() - startTime;
      onFirstText?.();
    }
    text += event.value.text;
  }
  checkReply(text);
  return firstTextMs;
}

function checkReply(text: string): void {
  if (text !== REPLY) throw new Error(`a wrong reply of ${text.length} characters`);
}

function turnOf(agentTeam: ModelName, index: number): TurnRequest {
  return { sessionId: "", userId: `bench-${index % USERS}`, agentTeam, message: MESSAGE };
}

/** Clients with a connection each, kept from command to command. */
function clientsOf(baseUrl: string, connections: number): Chat[] {
  const pool = pools.get(baseUrl) ?? [];
  pools.set(baseUrl, pool);
  while (pool.length < connections) pool.push(createClient(ChatService, createGrpcTransport({ baseUrl })));
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
