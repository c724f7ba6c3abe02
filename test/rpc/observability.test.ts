import { Code, createClient, type Transport } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { startTracing, type Tracing } from "../../src/platform/tracing.ts";
import { type OtlpCollector, startOtlpCollector } from "../platform/otlp-collector.ts";
import { eventually } from "../support/eventually.ts";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { contentTypeOf, framed, sendRaw } from "./raw-call.ts";
import { drained, refusalOf } from "./refusals.ts";
import { type Wire, wires } from "./wires.ts";

let collector: OtlpCollector;
let tracing: Tracing;
let app: TestApp;
beforeAll(async () => {
  // The SDK reads it itself.
  vi.stubEnv("OTEL_BSP_SCHEDULE_DELAY", "50");
  collector = await startOtlpCollector();
  const origin = { serviceName: "parley", version: "0.0.0-test", track: "stable" };
  tracing = startTracing({ ...origin, endpoint: collector.url, env: {} });
  app = await startTestApp();
});
afterAll(async () => {
  await app.close();
  await tracing.shutdown();
  await collector.close();
  vi.unstubAllEnvs();
});

function clientsOf(wire: Wire | undefined) {
  const transport = (wire as Wire).transport(app.url) as Transport;
  return { chat: createClient(ChatService, transport), sessions: createClient(SessionService, transport) };
}

describe.each(wires)("on $name", (wire) => {
  test("the caller's request id comes back with the answer, an error's too, and stands in the log", async () => {
    const { chat, sessions } = clientsOf(wire);
    const requestId = `caller-${crypto.randomUUID()}`;
    const headers = { "x-request-id": requestId };
    const seen: (string | null)[] = [];
    const onHeader = (header: Headers) => void seen.push(header.get("x-request-id"));
    await chat.chat({ message: "hello", userId: "u1" }, { headers, onHeader });
    await drained(chat.streamChat({ message: "hello", userId: "u1" }, { headers, onHeader }));
    const refusal = await refusalOf(sessions.getSession({ sessionId: "nobody-s" }, { headers }));
    expect([...seen, refusal.metadata.get("x-request-id")]).toEqual([requestId, requestId, requestId]);
    await eventually(() =>
      expect(app.logs.where({ request_id: requestId }).map(({ rpc, code }) => `${rpc} ${code}`)).toEqual([
        "Chat ok",
        "StreamChat ok",
        "GetSession not_found",
      ]),
    );
  });

  test("without one, or with one that cannot be logged, a new id is made", async () => {
    const { sessions } = clientsOf(wire);
    for (const headers of [{}, { "x-request-id": "a b" }, { "x-request-id": "x".repeat(129) }]) {
      let made: string | null = null;
      await sessions.createSession(
        { userId: "u1" },
        {
          headers: headers as Record<string, string>,
          onHeader: (header) => {
            made = header.get("x-request-id");
          },
        },
      );
      expect(made).toMatch(/^[0-9a-f-]{36}$/);
    }
  });
});

test("an RPC's line has the ids of its request, session, turn and trace, and so has its turn's but for the request", async () => {
  const { chat } = clientsOf(wires[0]);
  const headers = { "x-request-id": "ids-1", traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" };
  const { sessionId, turnId } = await chat.chat({ message: "hello", userId: "u1" }, { headers });
  const trace = "0af7651916cd43dd8448eb211c80319c";
  const ids = { session_id: sessionId, turn_id: turnId, trace_id: trace };
  await eventually(() => {
    expect(app.logs.where({ request_id: "ids-1", msg: "rpc ended", ...ids })).toHaveLength(1);
    expect(app.logs.where({ msg: "turn ended", ...ids })).toHaveLength(1);
  });
  await vi.waitFor(() => {
    const names = collector.spans.filter(({ traceId }) => traceId === trace).map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(["parley.chat.v1.ChatService/Chat", "chat gpt-4"]));
  }, 5_000);
});

test("reads and changes of a session have its id in their lines, refused ones the id only if it can be one", async () => {
  const { sessions, chat } = clientsOf(wires[0]);
  const headers = { "x-request-id": "ids-2" };
  const { session } = await sessions.createSession({ userId: "u1" }, { headers });
  const sessionId = session?.sessionId ?? "";
  await sessions.getSession({ sessionId }, { headers });
  await refusalOf(chat.chat({ sessionId: "nobody-s", message: "hello", userId: "u1" }, { headers }));
  await refusalOf(sessions.getSession({ sessionId: "not an id" }, { headers }));
  const lines = () => app.logs.where({ request_id: "ids-2" }).map(({ rpc, session_id }) => [rpc, session_id]);
  await eventually(() =>
    expect(lines()).toEqual([
      ["CreateSession", sessionId],
      ["GetSession", sessionId],
      ["Chat", "nobody-s"],
      ["GetSession", undefined],
    ]),
  );
});

test("RPCs are counted once each by method and code, those that could not be read too", async () => {
  const counted = await startTestApp();
  try {
    const { chat } = { chat: createClient(ChatService, (wires[0] as Wire).transport(counted.url)) };
    await chat.chat({ message: "hello", userId: "u1" });
    await chat.chat({ message: "hello", userId: "u1" });
    await refusalOf(chat.chat({ message: "", userId: "u1" }));
    await drained(chat.streamChat({ message: "hello", userId: "u1" }));
    await sendRaw(
      counted.url,
      {
        path: "/parley.chat.v1.ChatService/Chat",
        headers: { "content-type": "application/json" },
        body: Buffer.from("{"),
      },
      "1.1",
    );
    const count = async (rpc: string, code: string) => {
      const line = (await counted.metrics())
        .split("\n")
        .find((text) => text.startsWith("parley_requests_total{") && text.includes(`rpc="${rpc}",code="${code}"`));
      return Number(line?.split(" ").at(-1));
    };
    expect(await count("Chat", "ok")).toBe(2);
    expect(await count("Chat", "invalid_argument")).toBe(2);
    expect(await count("StreamChat", "ok")).toBe(1);
    const metrics = await counted.metrics();
    expect(metrics).toMatch(/^parley_request_duration_seconds_count\{[^}]*rpc="Chat"[^}]*\} 4$/m);
    expect(metrics).toMatch(/^parley_requests_total\{rpc="Chat",code="ok",version="0\.0\.0-test",track="stable"\} 2$/m);
    expect(metrics).toMatch(/^parley_active_sessions\{[^}]*\} 3$/m);
  } finally {
    await counted.close();
  }
});

test("a client that goes away amid a stream is counted once, as cancelled, and is no error in the log", async () => {
  const slow = await startTestApp({ model: "sim-stall", env: { DRAIN_MS: "0" } });
  try {
    for (const wire of wires) {
      const stop = new AbortController();
      const chat = createClient(ChatService, wire.transport(slow.url));
      const stream = chat.streamChat({ message: "hello", userId: "u1" }, { signal: stop.signal });
      const reading = refusalOf(
        (async () => {
          for await (const { event } of stream) if (event.case === "agentStarted") stop.abort();
        })(),
      );
      expect((await reading).code).toBe(Code.Canceled);
    }
    await eventually(() => expect(slow.logs.where({ rpc: "StreamChat" })).toHaveLength(wires.length));
    const codes = slow.logs.where({ rpc: "StreamChat" }).map(({ level, code }) => `${level} ${code}`);
    expect(new Set(codes)).toEqual(new Set(["info canceled"]));
  } finally {
    await slow.close();
  }
});

test("what is said, given or sent wrongly stands in no log line, metric or span", async () => {
  const marker = "xyzzy-7f3a";
  const failing = await startTestApp({ yaml: TEAMS, env: { OPENAI_API_KEY: `sk-${marker}` } });
  try {
    for (const wire of wires) {
      const transport = wire.transport(failing.url);
      const chat = createClient(ChatService, transport);
      const sessions = createClient(SessionService, transport);
      const metadata = { [marker]: marker };
      const headers = { "x-secret": marker, authorization: `Bearer ${marker}`, "x-request-id": `not an id ${marker}` };
      const said = { message: `remember ${marker}`, userId: "u1", metadata };
      const { sessionId, response } = await chat.chat(said, { headers });
      expect(response).toContain(marker);
      await drained(chat.streamChat({ ...said, sessionId }, { headers }));
      await sessions.updateSession({ sessionId, metadata }, { headers });
      await sessions.listMessages({ sessionId }, { headers });
      for (const agentTeam of ["refused", "broken", "cut"]) {
        await refusalOf(chat.chat({ ...said, agentTeam }, { headers }));
      }
      await refusalOf(chat.chat({ ...said, agentTeam: marker }));
      await refusalOf(chat.chat({ ...said, useCase: `${marker} ${marker}` }));
      await chat.chat({ ...said, idempotencyKey: `${marker}-${wire.name.replaceAll(/\W/g, "-")}` });
      await refusalOf(chat.chat({ ...said, idempotencyKey: `${marker} ` }));
      await refusalOf(chat.chat({ ...said, sessionId: `${marker}/` }));
      await refusalOf(chat.getTurn({ turnId: marker }));
      await refusalOf(sessions.listMessages({ sessionId, pageToken: marker }));
      for (const [rpc, stream] of [
        ["Chat", false],
        ["StreamChat", true],
        [marker, false],
      ] as const) {
        for (const text of [`{"message": ${marker}`, `{"message": 5, "userId": "${marker}"}`]) {
          const request = {
            path: `/parley.chat.v1.ChatService/${rpc}?${marker}`,
            headers: { "content-type": contentTypeOf(wire, stream), "x-secret": marker },
            body: framed(wire, stream, Buffer.from(text)),
          };
          await sendRaw(failing.url, request, wire.httpVersion);
        }
      }
    }
    await vi.waitFor(() => expect(collector.raw()).toContain("ListMessages"), 5_000);
    const metrics = await failing.metrics();
    await failing.close();
    const reasons = new Set(failing.logs.lines().map(({ reason }) => reason));
    for (const reason of ["MODEL_REFUSED", "MODEL_UNAVAILABLE", "INVALID_FIELD", "MALFORMED_REQUEST"])
      expect(reasons).toContain(reason);
    expect(failing.logs.text()).not.toContain(marker);
    expect(metrics).not.toContain(marker);
    await tracing.shutdown();
    expect(collector.raw()).not.toContain(marker);
  } finally {
    await failing.close();
  }
});

const TEAMS = `
agents:
  echo: { system_message: Say xyzzy-7f3a to nobody. }
  refused: { model: sim-401 }
  broken: { model: sim-malformed }
  cut: { model: sim-cut }
teams:
  assistant: { agent: echo }
  refused: { agent: refused }
  broken: { agent: broken }
  cut: { agent: cut }
default_team: assistant
breaker: { min_calls: 1000 }
`;
