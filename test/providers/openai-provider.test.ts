import { getEventListeners } from "node:events";
import type { ServerResponse } from "node:http";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { ModelCallFailure, type ModelMessage } from "../../src/engine/model.ts";
import { tokenizerFor } from "../../src/engine/tokenizer.ts";
import type { FailureReason } from "../../src/failure.ts";
import { createFetchTransport } from "../../src/providers/fetch-transport.ts";
import type { ModelTransport } from "../../src/providers/model-transport.ts";
import { createOpenAiProvider } from "../../src/providers/openai-provider.ts";
import { type SimulatedModel, startSimulatedModel } from "../../src/providers/simulated-model.ts";
import { createUndiciTransport } from "../../src/providers/undici-transport.ts";
import { eventually } from "../support/eventually.ts";
import { beginStream, DONE, deadBaseUrl, event, STOP, startModelServer, textEvent, USAGE } from "./model-server.ts";
import { outcomeOf, REQUEST } from "./provider-calls.ts";

let simulated: SimulatedModel;
beforeAll(async () => {
  simulated = await startSimulatedModel({ chunkDelayMs: 1 });
});
afterAll(() => simulated.close());

describe.each([
  ["undici", createUndiciTransport],
  ["fetch", createFetchTransport],
] as [string, () => ModelTransport & { close?(): Promise<void> }][])("over %s", (_, createTransport) => {
  const transport = createTransport();
  afterAll(() => transport.close?.());

  const providerAt = (baseUrl: string, options: Partial<Parameters<typeof createOpenAiProvider>[0]> = {}) =>
    createOpenAiProvider({
      baseUrl,
      apiKey: "key",
      model: "gpt-4",
      outputBound: "max_completion_tokens",
      transport,
      idleTimeoutMs: 10_000,
      ...options,
    });

  /** A provider for a model of the simulated server, and the calls that the server had of it. */
  const simulatedAs = (model: string, options: { idleTimeoutMs?: number } = {}) => {
    const before = simulated.callCount;
    return {
      provider: providerAt(simulated.baseUrl, { model, ...options }),
      calls: () => simulated.calls.slice(before),
    };
  };

  describe("the request", () => {
    test.each(["max_completion_tokens", "max_tokens"] as const)(
      "asks for a stream with usage, at the given temperature, bounded by %s",
      async (outputBound) => {
        const server = await startModelServer((response) => answer(response, textEvent("Hi"), STOP, USAGE, DONE));
        const { reply } = await outcomeOf(providerAt(server.baseUrl, { outputBound }));
        expect(reply?.text).toBe("Hi");
        expect(server.requests).toHaveLength(1);
        const [request] = server.requests;
        expect(request).toMatchObject({ path: "/v1/chat/completions", headers: { authorization: "Bearer key" } });
        expect(request?.body).toEqual({
          model: "gpt-4",
          messages: REQUEST.messages,
          temperature: 0.3,
          [outputBound]: 500,
          stream: true,
          stream_options: { include_usage: true },
        });
      },
    );

    test("has tool calls and their results as OpenAI writes them", async () => {
      const server = await startModelServer((response) => answer(response, textEvent("Hi"), STOP));
      const messages: ModelMessage[] = [
        { role: "user", content: "Look" },
        { role: "assistant", content: "", toolCalls: [{ id: "c1", name: "look", argumentsJson: "{}" }] },
        { role: "tool", toolCallId: "c1", content: "nothing" },
        { role: "assistant", content: "Nothing.", toolCalls: [] },
      ];
      await outcomeOf(providerAt(server.baseUrl), { messages });
      expect(server.requests[0]?.body).toHaveProperty("messages", [
        { role: "user", content: "Look" },
        {
          role: "assistant",
          content: "",
          tool_calls: [{ id: "c1", type: "function", function: { name: "look", arguments: "{}" } }],
        },
        { role: "tool", tool_call_id: "c1", content: "nothing" },
        { role: "assistant", content: "Nothing." },
      ]);
    });
  });

  describe("a reply", () => {
    test("comes in pieces that make its text, with the provider's own count of tokens", async () => {
      const { provider, calls } = simulatedAs("gpt-4");
      const { reply, pieces } = await outcomeOf(provider);
      expect(pieces.length).toBeGreaterThan(3);
      expect(pieces).not.toContain("");
      expect(reply).toMatchObject({ model: "gpt-4", ended: "stop", toolCalls: [], text: pieces.join("") });
      const [call] = calls();
      expect(call?.state).toBe("answered");
      expect(reply?.usage).toEqual({
        promptTokens: call?.promptTokens,
        completionTokens: call?.completionTokens,
        cachedPromptTokens: 0,
        reasoningTokens: 0,
        source: UsageSource.PROVIDER,
      });
    });

    test("whose provider reports no usage is counted by a tokenizer, and labelled so", async () => {
      const { reply } = await outcomeOf(simulatedAs("sim-no-usage").provider);
      const tokenizer = tokenizerFor("sim-no-usage");
      expect(reply?.usage).toEqual({
        promptTokens: tokenizer.countPrompt(REQUEST.messages),
        completionTokens: tokenizer.countText(reply?.text ?? ""),
        source: UsageSource.TOKENIZER_ESTIMATE,
      });
    });

    test("whose usage makes no sense is counted by a tokenizer", async () => {
      const nonsense = event({ choices: [], usage: { prompt_tokens: -1, completion_tokens: 3.5 } });
      const server = await startModelServer((response) => answer(response, textEvent("Hi"), STOP, nonsense, DONE));
      const { reply } = await outcomeOf(providerAt(server.baseUrl));
      expect(reply?.usage.source).toBe(UsageSource.TOKENIZER_ESTIMATE);
    });

    test.each([
      ["sim-length", "length"],
      ["sim-content-filter", "content_filter"],
    ])("of %s says that it ended by %s", async (model, ended) => {
      expect((await outcomeOf(simulatedAs(model).provider)).reply?.ended).toBe(ended);
    });

    test("may be slow, as long as it is not silent for too long", async () => {
      // Longer in all than it may be silent.
      const { reply, pieces } = await outcomeOf(simulatedAs("sim-5x120", { idleTimeoutMs: 400 }).provider);
      expect(pieces).toHaveLength(5);
      expect(reply?.ended).toBe("stop");
    });

    test("is the same with its bytes one by one, in the midst of characters and events", async () => {
      const text = "Grüße, 世界 👩‍🚀!";
      const bytes = Buffer.from(textEvent(text) + STOP + USAGE + DONE);
      const server = await startModelServer(async (response) => {
        beginStream(response);
        response.socket?.setNoDelay(true);
        for (const byte of bytes) {
          response.write(Buffer.of(byte));
          await new Promise((resolve) => setImmediate(resolve));
        }
        response.end();
      });
      const { reply } = await outcomeOf(providerAt(server.baseUrl));
      expect(reply).toMatchObject({ text, usage: { promptTokens: 11, completionTokens: 3 } });
    });

    test("may have an event of 900 kB", async () => {
      const text = "word ".repeat(180_000);
      const server = await startModelServer((response) => answer(response, textEvent(text), STOP, USAGE));
      const { reply } = await outcomeOf(providerAt(server.baseUrl));
      expect(reply?.text).toBe(text);
    });

    test("that has ended is whole though its connection breaks before the usage", async () => {
      const server = await startModelServer(async (response) => {
        beginStream(response);
        response.write(textEvent("Hi") + STOP, () => response.destroy());
      });
      const { reply } = await outcomeOf(providerAt(server.baseUrl));
      expect(reply).toMatchObject({ text: "Hi", usage: { source: UsageSource.TOKENIZER_ESTIMATE } });
    });

    test("that is done does not wait for a server that keeps the stream open", async () => {
      const server = await startModelServer((response) => {
        beginStream(response);
        response.write(textEvent("Hi") + STOP + USAGE + DONE);
      });
      const { reply } = await outcomeOf(providerAt(server.baseUrl, { idleTimeoutMs: 60_000 }), { timeoutMs: 60_000 });
      expect(reply).toMatchObject({ text: "Hi", usage: { source: UsageSource.PROVIDER } });
      await eventually(() => expect(server.abandoned).toBe(1));
    }, 20_000);

    test("leaves its connection to the next call, and no listener on the caller's signal", async () => {
      const server = await startModelServer((response) => answer(response, textEvent("Hi"), STOP, USAGE, DONE));
      const provider = providerAt(server.baseUrl);
      const { signal } = new AbortController();
      for (let call = 0; call < 10; call++) {
        expect((await outcomeOf(provider, {}, { signal })).reply?.text).toBe("Hi");
      }
      expect(server.requests).toHaveLength(10);
      // Two: a call may begin while the one before gives its connection back.
      expect(server.connections).toBeLessThanOrEqual(2);
      expect(getEventListeners(signal, "abort")).toHaveLength(0);
    });
  });

  describe("a refusal", () => {
    test.each([
      ["sim-400", "MODEL_REFUSED", undefined],
      ["sim-401", "MODEL_REFUSED", undefined],
      ["sim-403", "MODEL_REFUSED", undefined],
      ["sim-404", "MODEL_REFUSED", undefined],
      ["sim-429", "MODEL_RATE_LIMITED", 7_000],
      ["sim-500", "MODEL_UNAVAILABLE", 1_000],
    ] as [string, FailureReason, number | undefined][])(
      "of %s is %s, asked for once and counted as a call of no tokens",
      async (model, reason, retryAfterMs) => {
        const { provider, calls } = simulatedAs(model);
        const { failure, usage, pieces } = await outcomeOf(provider);
        expect(failure).toBeInstanceOf(ModelCallFailure);
        expect(failure?.reason).toBe(reason);
        expect(failure?.facts.retryAfterMs).toBe(retryAfterMs);
        expect(usage).toEqual({ promptTokens: 0, completionTokens: 0, source: UsageSource.TOKENIZER_ESTIMATE });
        expect(pieces).toEqual([]);
        expect(calls()).toHaveLength(1);
      },
    );

    test.each([
      [429, "2", 2_000],
      [429, "0.5", 500],
      [429, "0", 1_000],
      [429, "soon", 1_000],
      [429, "", 1_000],
      [429, "Thu, 01 Jan 1970 00:00:00 GMT", 1_000],
      [429, "99999999999", 86_400_000],
      [429, "Infinity", 86_400_000],
      [503, "3", 3_000],
      [502, "", 1_000],
    ])("with status %i and Retry-After %j advises to wait %i ms", async (status, header, retryAfterMs) => {
      const server = await startModelServer((response) => {
        response.writeHead(status, { ...(header === "" ? {} : { "retry-after": header }) }).end("busy");
      });
      const { failure } = await outcomeOf(providerAt(server.baseUrl));
      expect(failure?.reason).toBe(status === 429 ? "MODEL_RATE_LIMITED" : "MODEL_UNAVAILABLE");
      expect(failure?.facts.retryAfterMs).toBe(retryAfterMs);
      expect(server.requests).toHaveLength(1);
    });

    test("with Retry-After as a date advises to wait until then", async () => {
      const server = await startModelServer((response) => {
        response.writeHead(429, { "retry-after": new Date(Date.now() + 60_000).toUTCString() }).end();
      });
      const { failure } = await outcomeOf(providerAt(server.baseUrl));
      expect(failure?.facts.retryAfterMs).toBeGreaterThan(30_000);
      expect(failure?.facts.retryAfterMs).toBeLessThanOrEqual(60_000);
    });

    test("says nothing of the provider's words", async () => {
      const server = await startModelServer((response) => {
        response.writeHead(400, { "content-type": "application/json" });
        response.end(JSON.stringify({ error: { message: "you sent: my secret" } }));
      });
      const { failure } = await outcomeOf(providerAt(server.baseUrl));
      expect(failure?.message).toBe("MODEL_REFUSED");
      expect(JSON.stringify(failure?.facts)).not.toContain("secret");
    });
  });

  describe("no connection", () => {
    test("to a server that is down is no call: it has no usage", async () => {
      const { failure, usage } = await outcomeOf(providerAt(await deadBaseUrl()));
      expect(failure?.reason).toBe("MODEL_UNAVAILABLE");
      expect(failure?.facts.retryAfterMs).toBe(1_000);
      expect(failure).not.toBeInstanceOf(ModelCallFailure);
      expect(usage).toBeUndefined();
    });

    test("to a server that does not speak TLS is no call either", async () => {
      const server = await startModelServer(() => undefined);
      const { failure } = await outcomeOf(providerAt(server.baseUrl.replace("http:", "https:")));
      expect(failure?.reason).toBe("MODEL_UNAVAILABLE");
      expect(failure).not.toBeInstanceOf(ModelCallFailure);
    });
  });

  describe("a broken answer", () => {
    test.each([
      ["HTML with status 200", "sim-html", false],
      ["a stream without a reply", "sim-empty", false],
      ["a stream that is cut", "sim-cut", true],
      ["an event that is no JSON", "sim-malformed", true],
      ["silence before the first text", "sim-stall", false],
      ["silence amid the reply", "sim-stall-midway", true],
    ])("(%s) is MODEL_UNAVAILABLE, with what was said and an estimate of what it cost", async (_, model, speaks) => {
      const { provider, calls } = simulatedAs(model, { idleTimeoutMs: 300 });
      const { failure, usage, pieces } = await outcomeOf(provider);
      expect(failure).toBeInstanceOf(ModelCallFailure);
      expect(failure).toMatchObject({ reason: "MODEL_UNAVAILABLE", facts: { retryAfterMs: 1_000 } });
      expect(pieces.length > 0).toBe(speaks);
      const tokenizer = tokenizerFor(model);
      expect(usage).toMatchObject({
        promptTokens: tokenizer.countPrompt(REQUEST.messages),
        source: UsageSource.TOKENIZER_ESTIMATE,
      });
      // Not less than was delivered, nor more than the call was allowed.
      expect(usage?.completionTokens).toBeGreaterThanOrEqual(tokenizer.countText(pieces.join("")));
      expect(usage?.completionTokens).toBeLessThanOrEqual(REQUEST.maxOutputTokens);
      expect(calls()).toHaveLength(1);
      if (model.startsWith("sim-stall")) {
        await eventually(() => expect(calls()[0]?.state).toBe("closed_by_client"));
      }
    });

    test.each([
      ["no byte at all", ""],
      ["a reply that does not end", textEvent("Half a sen")],
      ["a reply that does not end, though the stream says it is done", textEvent("Half a sen") + DONE],
      ["an event that is no object", event("42")],
      ["an error amid the stream", textEvent("Half a sen") + event({ error: { message: "overloaded" } })],
      ["a tool call at a place beyond all bounds", toolEvent({ index: 4_000_000_000, id: "c1" })],
      ["choices that are nothing of the kind", event({ choices: [null] })],
    ])("(%s) is MODEL_UNAVAILABLE", async (_, body) => {
      const server = await startModelServer((response) => answer(response, body));
      const { failure } = await outcomeOf(providerAt(server.baseUrl));
      expect(failure).toBeInstanceOf(ModelCallFailure);
      expect(failure?.reason).toBe("MODEL_UNAVAILABLE");
    });

    test("(an event without an end) is given up, and its connection closed", async () => {
      const server = await startModelServer(async (response) => {
        beginStream(response);
        response.write('data: {"choices":[{"delta":{"content":"');
        const more = (): void => {
          if (!response.destroyed) response.write("x".repeat(65_536), () => setImmediate(more));
        };
        more();
      });
      const { failure } = await outcomeOf(providerAt(server.baseUrl));
      expect(failure?.reason).toBe("MODEL_UNAVAILABLE");
      await eventually(() => expect(server.abandoned).toBe(1));
    });

    test("(a server that never answers) is given up after the call's time", async () => {
      const server = await startModelServer(() => undefined);
      const { failure, usage } = await outcomeOf(providerAt(server.baseUrl), { timeoutMs: 100 });
      expect(failure?.reason).toBe("MODEL_UNAVAILABLE");
      // The request was sent: it may cost.
      expect(usage?.promptTokens).toBeGreaterThan(0);
      await eventually(() => expect(server.abandoned).toBe(1));
    });

    test("(a reply that goes on and on) is given up after the call's time", async () => {
      const server = await startModelServer((response) => {
        beginStream(response);
        const more = setInterval(() => response.write(textEvent("and ")), 10);
        response.on("close", () => clearInterval(more));
      });
      const { failure, pieces } = await outcomeOf(providerAt(server.baseUrl), { timeoutMs: 300 });
      expect(failure?.reason).toBe("MODEL_UNAVAILABLE");
      expect(pieces.length).toBeGreaterThan(1);
      await eventually(() => expect(server.abandoned).toBe(1));
    });
  });

  describe("a call that is cancelled", () => {
    test.each([
      ["amid the reply", "sim-100x20"],
      ["amid a stall", "sim-stall-midway"],
    ])("%s closes its connection and says no more", async (_, model) => {
      const stop = new AbortController();
      const reason = new Error("enough");
      const { provider, calls } = simulatedAs(model);
      const { failure, usage, pieces } = await outcomeOf(
        provider,
        {},
        { signal: stop.signal, onText: () => stop.abort(reason) },
      );
      expect(failure).toBeInstanceOf(ModelCallFailure);
      expect(failure).toMatchObject({ reason: "CALL_CANCELLED", cause: reason });
      expect(usage).toEqual({
        promptTokens: tokenizerFor(model).countPrompt(REQUEST.messages),
        completionTokens: tokenizerFor(model).countText(pieces.join("")),
        source: UsageSource.TOKENIZER_ESTIMATE,
      });
      const said = pieces.length;
      await eventually(() => expect(calls()[0]?.state).toBe("closed_by_client"));
      expect(pieces).toHaveLength(said);
    });

    test("before the answer closes its connection", async () => {
      const stop = new AbortController();
      const server = await startModelServer(() => stop.abort());
      const { failure } = await outcomeOf(providerAt(server.baseUrl), {}, { signal: stop.signal });
      expect(failure).toBeInstanceOf(ModelCallFailure);
      expect(failure?.reason).toBe("CALL_CANCELLED");
      await eventually(() => expect(server.abandoned).toBe(1));
    });

    test("before it begins is not made", async () => {
      const { provider, calls } = simulatedAs("gpt-4");
      const { failure, usage } = await outcomeOf(provider, {}, { signal: AbortSignal.abort() });
      expect(failure?.reason).toBe("CALL_CANCELLED");
      expect(usage).toBeUndefined();
      expect(calls()).toEqual([]);
    });
  });

  describe("a probe", () => {
    test.each([200, 401, 404, 500])(
      "succeeds when the server answers %i, and keeps no connection for it",
      async (status) => {
        const server = await startModelServer((response) => {
          response.writeHead(status, { "content-type": "application/json" });
          // More than a connection reads ahead.
          response.end(JSON.stringify({ data: ["x".repeat(1_000_000)] }));
        });
        const provider = providerAt(server.baseUrl);
        for (let probe = 0; probe < 5; probe++) await provider.probe(new AbortController().signal);
        expect(server.requests.map(({ path }) => path)).toEqual(Array(5).fill("/v1/models"));
        expect(server.connections).toBeLessThanOrEqual(2);
      },
    );

    test("fails when nobody answers", async () => {
      const stop = new AbortController();
      const silent = await startModelServer(() => stop.abort());
      await expect(providerAt(silent.baseUrl).probe(stop.signal)).rejects.toThrow();
      await expect(providerAt(await deadBaseUrl()).probe(new AbortController().signal)).rejects.toThrow();
    });
  });
});

test("a transport that is closed leaves no connection open", async () => {
  const transport = createUndiciTransport();
  onTestFinished(() => transport.close());
  const server = await startModelServer((response) => beginStream(response));
  const provider = createOpenAiProvider({
    baseUrl: server.baseUrl,
    apiKey: undefined,
    model: "gpt-4",
    outputBound: "max_tokens",
    transport,
    idleTimeoutMs: 10_000,
  });
  const call = outcomeOf(provider);
  await eventually(() => expect(server.requests).toHaveLength(1));
  await transport.close();
  expect((await call).failure?.reason).toBe("MODEL_UNAVAILABLE");
  await eventually(() => expect(server.abandoned).toBe(1));
});

function answer(response: ServerResponse, ...events: string[]): void {
  beginStream(response);
  response.end(events.join(""));
}

function toolEvent(call: unknown): string {
  return event({ choices: [{ index: 0, delta: { tool_calls: [call] }, finish_reason: null }] });
}
