import { execFileSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { Miniflare } from "miniflare";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { ChatService, OnDisconnect } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { type SimulatedModel, startSimulatedModel } from "../../src/providers/simulated-model.ts";
import { startTestApp } from "../support/parley-app.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";

// The edge entry in real workerd, as an operator deploys it.
let folder: string;
let model: SimulatedModel;
let redis: RedisServer;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "parley-edge-"));
  execFileSync(process.execPath, ["standalone/build-edge.ts", join(folder, "edge.js")], { stdio: "inherit" });
  model = await startSimulatedModel({ chunkDelayMs: 5 });
  redis = await startRedisServer();
});
afterAll(async () => {
  await redis?.stop();
  await model?.close();
  await rm(folder, { recursive: true, force: true });
});

async function startWorker(bindings: Record<string, string>): Promise<{ url: string; worker: Miniflare }> {
  const worker = new Miniflare({
    modules: [{ type: "ESModule", path: join(folder, "edge.js") }],
    modulesRoot: folder,
    compatibilityDate: "2026-07-01",
    compatibilityFlags: ["nodejs_compat", "enable_request_signal"],
    bindings: { OPENAI_BASE_URL: model.baseUrl, LOG_LEVEL: "warn", VERSION: "0.0.0-edge", ...bindings },
    host: "127.0.0.1",
    port: 0,
  });
  return { url: (await worker.ready).origin, worker };
}

const wires = {
  connect: (baseUrl: string): Transport => createConnectTransport({ baseUrl, httpVersion: "1.1" }),
  "gRPC-Web": (baseUrl: string): Transport => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
};

describe.each(["the embedded store", "Redis"])("on %s", (kind) => {
  let url: string;
  let worker: Miniflare;
  beforeAll(async () => {
    ({ url, worker } = await startWorker(kind === "Redis" ? { REDIS_URL: redis.url } : {}));
  });
  afterAll(() => worker?.dispose());

  test.each(Object.entries(wires))("%s: a reply, and a stream that knows of it", async (_, wire) => {
    const chat = createClient(ChatService, wire(url));
    const first = await chat.chat({ message: "my name is Ada", userId: "u1" });
    expect(first.finishReason).toBe(FinishReason.STOP);
    let text = "";
    let completed = "";
    const sequences: bigint[] = [];
    const { sessionId } = first;
    for await (const { sequence, event } of chat.streamChat({ sessionId, message: "what is my name?", userId: "u1" })) {
      sequences.push(sequence);
      if (event.case === "textDelta") text += event.value.text;
      if (event.case === "messageCompleted") completed = event.value.content;
    }
    expect(text).toContain("my name is Ada");
    expect(completed).toBe(text);
    expect(sequences).toEqual(sequences.map((_, index) => BigInt(index + 1)));
  });

  test("calls at the same time do not disturb each other", async () => {
    const chat = createClient(ChatService, wires.connect(url));
    const messages = Array.from({ length: 8 }, (_, index) => `message ${index}`);
    const replies = await Promise.all(messages.map((message) => chat.chat({ message, userId: "u2" })));
    for (const [index, { response }] of replies.entries()) expect(response).toContain(`message ${index}`);
  });

  test("a client that goes away ends its turn and the model's call", async () => {
    const chat = createClient(ChatService, wires.connect(url));
    const gone = new AbortController();
    const message = "tell me a long story ".repeat(40);
    let sessionId = "";
    let turnId = "";
    const reading = (async () => {
      for await (const { event } of chat.streamChat({ message, userId: "u3" }, { signal: gone.signal })) {
        if (event.case === "turnStarted") ({ sessionId, turnId } = event.value);
        if (event.case === "textDelta") gone.abort();
      }
    })();
    await expect(reading).rejects.toThrow();
    await vi.waitFor(
      async () => {
        const { turn } = await chat.getTurn({ turnId });
        expect(turn?.finishReason).toBe(FinishReason.CANCELLED);
      },
      { timeout: 20_000 },
    );
    expect(sessionId).not.toBe("");
  });

  test("a turn that is to outlive its call is refused", async () => {
    const chat = createClient(ChatService, wires.connect(url));
    const refused = await chat
      .chat({ message: "hello", userId: "u1", onDisconnect: OnDisconnect.CONTINUE })
      .catch(ConnectError.from);
    expect(refused).toMatchObject({ code: Code.FailedPrecondition });
    const [info] = (refused as ConnectError).findDetails(ErrorInfoSchema);
    expect(info?.reason).toBe("CONTINUE_NOT_POSSIBLE");
  });

  test("gRPC, which needs trailers, is refused in its own form", async () => {
    const response = await fetch(`${url}/parley.chat.v1.ChatService/Chat`, {
      method: "POST",
      headers: { "content-type": "application/grpc" },
      body: new Uint8Array(5),
    });
    await response.arrayBuffer();
    expect(response.headers.get("grpc-status")).toBe(String(Code.Unimplemented));
  });
});

test("a session that was begun at the edge goes on at a replica of the service, and back", async () => {
  const { url, worker } = await startWorker({ REDIS_URL: redis.url });
  const app = await startTestApp({ redisUrl: redis.url, simulated: model });
  try {
    const atEdge = createClient(ChatService, wires.connect(url));
    const atService = createClient(ChatService, wires.connect(app.url));
    const { sessionId } = await atEdge.chat({ message: "the word is heron", userId: "u1" });
    const second = await atService.chat({ sessionId, message: "the number is seven", userId: "u1" });
    expect(second.response).toContain("heron");
    const third = await atEdge.chat({ sessionId, message: "what do you know?", userId: "u1" });
    expect(third.response).toMatch(/heron[\s\S]*seven/);
    const { messages } = await createClient(SessionService, wires.connect(url)).listMessages({ sessionId });
    expect(messages).toHaveLength(6);
  } finally {
    await app.close();
    await worker.dispose();
  }
});
