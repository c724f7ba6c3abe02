import { createClient } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { threeWires } from "../rpc/wires.ts";
import { useTestApp } from "../support/use-app.ts";
import { type OpenAiCall, officialClients } from "./openai-clients.ts";

// Chat completions by the official clients, as people who have them would call.

const agents = {
  plain: { system_message: "You are plain." },
  first: { model: "sim-2x0", system_message: "first" },
  second: { model: "sim-3x0", system_message: "second" },
  paced: { model: "sim-6x60" },
  ends: { model: "sim-terminate" },
  cut: { model: "sim-cut" },
  refuses: { model: "sim-401" },
  busy: { model: "sim-429" },
  filters: { model: "sim-content-filter" },
  breaks: { model: "sim-500" },
};
const single = (name: string) => [name, { agent: name }];
const app = useTestApp({
  env: { RATE_LIMIT: "1000" },
  yaml: JSON.stringify({
    default_team: "plain",
    agents,
    teams: {
      ...Object.fromEntries(["plain", "paced", "ends", "cut", "refuses", "busy", "filters", "breaks"].map(single)),
      both: { kind: "round_robin", agents: ["first", "second"], max_consecutive_auto_reply: 1 },
    },
    budgets: [{ scope: "user", id: "poor", period: "day", limit_tokens: 100 }],
    breaker: { min_calls: 1000 },
  }),
});
const sessions = () => createClient(SessionService, threeWires[1].transport(app.url));
const chat = () => createClient(ChatService, threeWires[1].transport(app.url));

const said = (content: string) => ({ role: "user", content }) as const;
/** The messages of the newest call of the model. */
const lastPrompt = () => app.simulated.calls.at(-1)?.messages.map(({ role, content }) => [role, content]);

describe.each(officialClients)("%s", (_, call) => {
  const ask = (request: Partial<OpenAiCall["request"]>, more: Partial<OpenAiCall> = {}) =>
    call({
      url: app.url,
      request: { model: "plain", messages: [said("hello there")], ...request } as OpenAiCall["request"],
      ...more,
    });

  test("finds the agent teams as models", async () => {
    const { models } = await call({ url: app.url, request: null });
    expect(models).toEqual(["plain", "paced", "ends", "cut", "refuses", "busy", "filters", "breaks", "both"]);
  });

  test("gets a completion with its usage, its session and its turn", async () => {
    const answer = await ask({ user: "ann" });
    expect(answer).toMatchObject({ model: "plain", finishReason: "stop", error: null });
    expect(answer.content).toContain("hello there");
    const turnId = answer.headers["x-parley-turn-id"] ?? "";
    expect(answer.id).toBe(`chatcmpl-${turnId}`);
    const { turn } = await chat().getTurn({ turnId });
    const { promptTokens = 0, completionTokens = 0 } = turn?.tokenUsage ?? {};
    expect(promptTokens).toBeGreaterThan(0);
    expect(answer.usage).toEqual({
      prompt_tokens: promptTokens,
      completion_tokens: completionTokens,
      total_tokens: promptTokens + completionTokens,
    });
    const sessionId = answer.headers["x-parley-session-id"] ?? "";
    expect(turn?.sessionId).toBe(sessionId);
    expect((await sessions().getSession({ sessionId })).session?.userId).toBe("ann");
    expect(answer.headers).toMatchObject({
      "x-ratelimit-limit-requests": "1000",
      "x-ratelimit-remaining-requests": expect.stringMatching(/^\d+$/),
      "x-ratelimit-reset-requests": expect.stringMatching(/^(1h0m0s|59m\d+s)$/),
    });
  });

  test("streams the same text in pieces, with usage where it is asked for", async () => {
    const whole = await ask({});
    const streamed = await ask({ stream: true, stream_options: { include_usage: true } });
    expect(streamed).toMatchObject({ content: whole.content, finishReason: "stop", usage: whole.usage, error: null });
    expect(streamed.headers["content-type"]).toMatch(/^text\/event-stream/);
    expect(streamed.headers["x-parley-session-id"]).toBeTruthy();
    expect((await ask({ stream: true })).usage).toBeNull();
  });

  test("reads a stream as it comes", async () => {
    const { content, chunks } = await ask({ model: "paced", stream: true });
    expect(content).toBe("piece 0 piece 1 piece 2 piece 3 piece 4 piece 5 ");
    expect(chunks).toBeGreaterThan(2);
  });

  test("the conversation that it sends is what the model sees, and the history of the session that it begins", async () => {
    const answer = await ask({
      messages: [
        { role: "system", content: "Answer in French." },
        said("my name is Ada"),
        { role: "assistant", content: "Bonjour Ada" },
        { role: "developer", content: [{ type: "text", text: "Be brief." }] },
        {
          role: "user",
          content: [
            { type: "text", text: "who" },
            { type: "text", text: "am I?" },
          ],
        },
      ],
    });
    expect(lastPrompt()).toEqual([
      ["system", "You are plain.\n\nAnswer in French.\n\nBe brief."],
      ["user", "my name is Ada"],
      ["assistant", "Bonjour Ada"],
      ["user", "who\nam I?"],
    ]);
    const sessionId = answer.headers["x-parley-session-id"] ?? "";
    const { messages } = await sessions().listMessages({ sessionId });
    expect(messages.map(({ content }) => content)).toEqual([
      "my name is Ada",
      "Bonjour Ada",
      "who\nam I?",
      answer.content,
    ]);
  });

  test("a session goes on by its header: its history is the service's, whatever is sent again", async () => {
    const sessionId = `s-${crypto.randomUUID()}`;
    const headers = { "x-parley-session-id": sessionId };
    const first = await ask({ messages: [said("I like tea")] }, { headers });
    expect(first.headers["x-parley-session-id"]).toBe(sessionId);
    await ask({ messages: [said("something else"), said("what do I like?")] }, { headers });
    expect(lastPrompt()?.slice(1)).toEqual([
      ["user", "I like tea"],
      ["assistant", first.content],
      ["user", "what do I like?"],
    ]);
    const foreign = await ask({ user: "somebody-else" }, { headers });
    expect(foreign.error).toMatchObject({ name: "NotFoundError", status: 404, code: "session_not_found" });
  });

  test("temperature and the bound on an answer are the model's", async () => {
    const answer = await ask({ temperature: 0.3, max_completion_tokens: 3 });
    expect(app.simulated.calls.at(-1)?.body).toMatchObject({ temperature: 0.3, max_completion_tokens: 3 });
    expect(answer.finishReason).toBe("length");
    expect(answer.usage?.completion_tokens).toBe(3);
  });

  test("what several agents say is one text, the same in both forms", async () => {
    const text = "piece 0 piece 1 \n\npiece 0 piece 1 piece 2 ";
    const whole = await ask({ model: "both" });
    expect(whole.content).toBe(text);
    expect((await ask({ model: "both", stream: true })).content).toBe(text);
  });

  test.each([
    ["ends", "stop"],
    ["filters", "content_filter"],
    ["both", "length"],
  ])("%s ends with %s", async (model, finishReason) => {
    expect(await ask({ model })).toMatchObject({ finishReason, error: null });
    expect(await ask({ model, stream: true })).toMatchObject({ finishReason, error: null });
  });

  test("a key makes a repeated request the same turn", async () => {
    const headers = { "idempotency-key": crypto.randomUUID() };
    const calls = app.simulated.callCount;
    const first = await ask({ model: "paced", stream: true }, { headers });
    const again = await ask({ model: "paced", stream: true }, { headers });
    expect([again.id, again.content, again.finishReason]).toEqual([first.id, first.content, "stop"]);
    expect(app.simulated.callCount).toBe(calls + 1);
    // Whole messages: pieces that were said before may be void.
    expect([first.chunks > 2, again.chunks]).toEqual([true, 2]);
    const other = await ask({ messages: [said("other")] }, { headers });
    expect(other.error).toMatchObject({ status: 409, code: "idempotency_key_reused" });
  });

  describe.each([false, true])("with stream: %s", (stream) => {
    test.each([
      [
        "a team that is not there",
        { model: "gpt-9" },
        "NotFoundError",
        404,
        "model_not_found",
        "invalid_request_error",
      ],
      ["n", { n: 2 }, "BadRequestError", 400, "unsupported_parameter", "invalid_request_error"],
      ["an empty message", { messages: [said("")] }, "BadRequestError", 400, "invalid_value", "invalid_request_error"],
      [
        "a prompt that does not fit",
        { messages: [{ role: "system", content: "word ".repeat(5_000) }, said("hi")] },
        "BadRequestError",
        400,
        "context_length_exceeded",
        "invalid_request_error",
      ],
      [
        "a budget that is too small",
        { user: "poor" },
        "RateLimitError",
        429,
        "insufficient_quota",
        "insufficient_quota",
      ],
      ["a model that is not reached", { model: "breaks" }, "APIError", 424, "model_unavailable", "server_error"],
      ["a model that refuses", { model: "refuses" }, "APIError", 424, "model_refused", "server_error"],
      ["a model's own limit", { model: "busy" }, "RateLimitError", 429, "rate_limit_exceeded", "requests"],
    ])("%s has the status and the form of that API", async (_, request, name, status, code, type) => {
      const answer = await ask({ ...request, stream } as never);
      expect(answer.error).toMatchObject({ status, code, type, message: expect.stringMatching(/\.$/) });
      if (name !== "APIError") expect(answer.error?.name).toBe(name);
      expect(answer.headers["x-request-id"]).toBeTruthy();
    });
  });

  test("a refusal that a retry cannot mend is not tried again, one that it can is", async () => {
    const refusalsOf = () => app.logs.where({ rpc: "StreamChat", code: "resource_exhausted" }).length;
    const before = refusalsOf();
    const answer = await ask({ user: "poor" }, { maxRetries: 2 });
    expect(answer.error?.code).toBe("insufficient_quota");
    expect(answer.headers["x-should-retry"]).toBe("false");
    expect(refusalsOf()).toBe(before + 1);
    const tries = app.logs.where({ reason: "MODEL_UNAVAILABLE", rpc: "StreamChat" }).length;
    const failed = await ask({ model: "breaks" }, { maxRetries: 1 });
    expect(failed.headers).toMatchObject({ "x-should-retry": "true", "retry-after": expect.stringMatching(/^\d+$/) });
    expect(app.logs.where({ reason: "MODEL_UNAVAILABLE", rpc: "StreamChat" })).toHaveLength(tries + 2);
  });

  test("a model that breaks off amid its answer ends the stream with an error, never as if it were whole", async () => {
    const { error, content, finishReason } = await ask({ model: "cut", stream: true });
    expect(content).not.toBe("");
    expect(finishReason).toBeNull();
    expect(error).toMatchObject({ code: "model_unavailable", type: "server_error" });
  });
});
