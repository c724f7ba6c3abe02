import { once } from "node:events";
import * as http2 from "node:http2";
import { createClient } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { FinishReason, TurnState } from "../../gen/parley/chat/v1/turn_pb.js";
import { sendRaw } from "../rpc/raw-call.ts";
import { threeWires } from "../rpc/wires.ts";
import { eventually } from "../support/eventually.ts";
import { startTestApp } from "../support/parley-app.ts";
import { useTestApp } from "../support/use-app.ts";

// What the official clients do not show: bytes on the wire, clients that go away, what operators see.

const PATH = "/v1/chat/completions";
const app = useTestApp({
  env: { CORS_ORIGINS: "https://app.example.com" },
  yaml: JSON.stringify({
    default_team: "plain",
    agents: { plain: {}, long: { model: "sim-400x50" }, paced: { model: "sim-12x60" } },
    teams: { plain: { agent: "plain" }, long: { agent: "long" }, paced: { agent: "paced" } },
  }),
});
const chat = () => createClient(ChatService, threeWires[1].transport(app.url));
const bodyOf = (more: object = {}) =>
  JSON.stringify({ model: "plain", messages: [{ role: "user", content: "hello secret words" }], ...more });
const post = (body: string, headers: Record<string, string> = {}, signal?: AbortSignal) =>
  fetch(`${app.url}${PATH}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body,
    ...(signal === undefined ? {} : { signal }),
  });

describe.each(["1.1", "2"] as const)("over HTTP/%s", (httpVersion) => {
  const json = { "content-type": "application/json" };
  const send = (body: string | Uint8Array, headers: Record<string, string> = json, method = "POST", path = PATH) => {
    const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
    return sendRaw(app.url, { path, method, headers, body: bytes }, httpVersion);
  };

  test("a stream is events of data, ended by [DONE]", async () => {
    const { status, header, body } = await send(bodyOf({ stream: true, stream_options: { include_usage: true } }));
    expect([status, header.get("content-type")]).toEqual([200, "text/event-stream; charset=utf-8"]);
    const events = body.toString().split("\n\n");
    expect(events.splice(-2)).toEqual(["data: [DONE]", ""]);
    const chunks = events.map((event) => JSON.parse(event.replace(/^data: /, "")));
    const common = { object: "chat.completion.chunk", model: "plain", id: chunks[0].id, created: chunks[0].created };
    for (const chunk of chunks) expect(chunk).toMatchObject(common);
    expect(chunks[0].choices[0]).toMatchObject({ index: 0, delta: { role: "assistant" }, finish_reason: null });
    expect(chunks[0].usage).toBeNull();
    expect(chunks.at(-2).choices).toEqual([{ index: 0, delta: {}, logprobs: null, finish_reason: "stop" }]);
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { total_tokens: expect.any(Number) } });
  });

  test.each([
    ["what is no JSON", 400, "invalid_json", "{", undefined],
    ["what is no UTF-8", 400, "invalid_json", new Uint8Array([0x22, 0xff, 0x22]), undefined],
    ["another content type", 415, "unsupported_content_type", bodyOf(), { "content-type": "text/plain" }],
    ["a compressed body", 415, "unsupported_content_type", bodyOf(), { ...json, "content-encoding": "gzip" }],
    ["more than 1 MiB", 413, "request_too_large", bodyOf({ user: "x".repeat(1_100_000) }), undefined],
    ["a session with a bad name", 400, "invalid_value", bodyOf(), { ...json, "x-parley-session-id": "a b" }],
  ])("%s is refused with %i %s, is logged and counted", async (_, status, code, body, headers) => {
    const requestId = crypto.randomUUID();
    const answer = await send(body, { ...(headers ?? json), "x-request-id": requestId });
    expect(answer.status).toBe(status);
    const { error } = JSON.parse(answer.body.toString());
    expect(error).toMatchObject({ type: "invalid_request_error", code });
    if (code === "invalid_value") expect(error.param).toBe("x-parley-session-id");
    expect(answer.header.get("x-request-id")).toBe(requestId);
    await eventually(() => expect(app.logs.where({ rpc: "StreamChat", request_id: requestId })).toHaveLength(1));
  });

  test.each([
    ["POST", "/v1/embeddings", 404, null],
    ["GET", "/v1/", 404, null],
    ["GET", PATH, 405, "POST"],
    ["POST", "/v1/models", 405, "GET"],
  ])("%s %s is told in the form of that API", async (method, path, status, allow) => {
    const answer = await send(method === "GET" ? "" : "{}", json, method, path);
    expect([answer.status, answer.header.get("allow")]).toEqual([status, allow]);
    expect(JSON.parse(answer.body.toString()).error).toMatchObject({ code: "unknown_url" });
  });

  test("one model is found by its name, and no other", async () => {
    const found = await send("", {}, "GET", "/v1/models/plain");
    expect(JSON.parse(found.body.toString())).toMatchObject({ id: "plain", object: "model", owned_by: "parley" });
    const error = { code: "model_not_found", message: expect.stringContaining("GET /v1/models lists") };
    for (const name of ["none", "plain/more", "%", ""]) {
      const missing = await send("", {}, "GET", `/v1/models/${name}`);
      expect([missing.status, JSON.parse(missing.body.toString()).error]).toEqual([
        404,
        expect.objectContaining(error),
      ]);
    }
  });
});

test("a browser's preflight allows the door's headers and those of the official client", async () => {
  const origin = "https://app.example.com";
  const preflight = await fetch(`${app.url}${PATH}`, {
    method: "OPTIONS",
    headers: { origin, "access-control-request-method": "POST" },
  });
  const allowed = preflight.headers.get("access-control-allow-headers")?.toLowerCase().split(", ");
  const official = [
    "x-stainless-lang",
    "x-stainless-retry-count",
    "x-stainless-timeout",
    "x-stainless-runtime-version",
    "x-stainless-helper-method",
  ];
  for (const name of ["x-parley-session-id", "idempotency-key", ...official]) expect(allowed).toContain(name);
  const answer = await post(bodyOf(), { origin });
  const exposed = answer.headers.get("access-control-expose-headers")?.toLowerCase().split(", ");
  for (const name of ["x-parley-session-id", "x-parley-turn-id", "retry-after"]) expect(exposed).toContain(name);
});

test("a client that goes away ends its completion; what was said is in the history", async () => {
  const gone = new AbortController();
  const response = await post(bodyOf({ model: "long", stream: true }), {}, gone.signal);
  await response.body?.getReader().read();
  gone.abort();
  const turnId = response.headers.get("x-parley-turn-id") ?? "";
  await eventually(async () => {
    const { turn } = await chat().getTurn({ turnId });
    expect([turn?.state, turn?.finishReason]).toEqual([TurnState.FINISHED, FinishReason.CANCELLED]);
  });
  await eventually(() =>
    expect(app.logs.where({ rpc: "StreamChat", code: "canceled", turn_id: turnId })).toHaveLength(1),
  );
});

test("so does one that resets its stream over HTTP/2", async () => {
  const session = http2.connect(app.url);
  try {
    const headers = { ":method": "POST", ":path": PATH, "content-type": "application/json" };
    const stream = session.request(headers).on("error", () => undefined);
    stream.end(bodyOf({ model: "long", stream: true }));
    const [answer] = (await once(stream, "response")) as [http2.IncomingHttpHeaders];
    await once(stream, "data");
    stream.close(http2.constants.NGHTTP2_CANCEL);
    const turnId = String(answer["x-parley-turn-id"]);
    await eventually(async () => {
      const { turn } = await chat().getTurn({ turnId });
      expect([turn?.state, turn?.finishReason]).toEqual([TurnState.FINISHED, FinishReason.CANCELLED]);
    });
    await eventually(() =>
      expect(app.logs.where({ rpc: "StreamChat", code: "canceled", turn_id: turnId })).toHaveLength(1),
    );
  } finally {
    session.destroy();
  }
});

test("with an idempotency key the turn goes on, and whoever comes back gets all of it", async () => {
  const headers = { "idempotency-key": crypto.randomUUID() };
  const gone = new AbortController();
  const response = await post(bodyOf({ model: "paced", stream: true }), headers, gone.signal);
  await response.body?.getReader().read();
  gone.abort();
  const again = await post(bodyOf({ model: "paced" }), headers);
  expect(again.headers.get("x-parley-turn-id")).toBe(response.headers.get("x-parley-turn-id"));
  const { choices } = (await again.json()) as { choices: { message: { content: string }; finish_reason: string }[] };
  expect(choices[0]?.message.content).toContain("piece 11");
  expect(choices[0]?.finish_reason).toBe("stop");
});

test("who waits for its session hears of it in a comment, then gets its answer", async () => {
  const headers = { "x-parley-session-id": crypto.randomUUID() };
  const first = await post(bodyOf({ model: "paced", stream: true }), headers);
  const second = await (await post(bodyOf({ stream: true }), headers)).text();
  expect(second).toMatch(/^: queued 1\n\n/);
  expect(second).toMatch(/data: \[DONE\]\n\n$/);
  expect(await first.text()).toContain("[DONE]");
});

test("operators see the RPC that it is, by its request id, and no text", async () => {
  const before = await streamsOk();
  const requestId = crypto.randomUUID();
  const answer = await post(bodyOf(), { "x-request-id": requestId });
  expect([answer.status, answer.headers.get("x-request-id")]).toEqual([200, requestId]);
  const [line] = app.logs.where({ request_id: requestId });
  expect(line).toMatchObject({ rpc: "StreamChat", code: "ok", turn_id: answer.headers.get("x-parley-turn-id") });
  expect(await streamsOk()).toBe(before + 1);
  expect(app.logs.text()).not.toContain("secret words");
});

async function streamsOk(): Promise<number> {
  const [, count = "0"] =
    /^parley_requests_total\{rpc="StreamChat",code="ok"[^}]*\} (\d+)/m.exec(await app.metrics()) ?? [];
  return Number(count);
}

test("the rate limit is told as that API tells it", async () => {
  const limited = await startTestApp({ env: { RATE_LIMIT: "1", RATE_WINDOW: "120" } });
  try {
    const call = () =>
      fetch(`${limited.url}${PATH}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: bodyOf({ model: "assistant" }),
      });
    const first = await call();
    expect([first.status, first.headers.get("x-ratelimit-remaining-requests")]).toEqual([200, "0"]);
    const second = await call();
    expect(second.status).toBe(429);
    expect(await second.json()).toMatchObject({ error: { type: "requests", code: "rate_limit_exceeded" } });
    expect(second.headers.get("x-ratelimit-limit-requests")).toBe("1");
    expect(second.headers.get("x-ratelimit-remaining-requests")).toBe("0");
    expect(second.headers.get("x-ratelimit-reset-requests")).toMatch(/^(2m0s|1m\d+s)$/);
    expect(Number(second.headers.get("retry-after"))).toBeGreaterThan(60);
    // The official clients would wait a second and try again.
    expect(second.headers.get("x-should-retry")).toBe("false");
  } finally {
    await limited.close();
  }
});
