import { context, trace } from "@opentelemetry/api";
import { afterEach, expect, test, vi } from "vitest";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { type Model, ModelCallFailure, type ModelReply, type ModelRequest } from "../../src/engine/model.ts";
import { Failure } from "../../src/failure.ts";
import { createConsoleLogger } from "../../src/platform/console-logger.ts";
import { startTracing, type Tracing, traceFacts } from "../../src/platform/tracing.ts";
import { inAgentSpan, SPAN_ATTRIBUTES, withChatSpans, withToolSpans } from "../../src/turns/genai-spans.ts";
import { eventually } from "../support/eventually.ts";
import { type OtlpCollector, startOtlpCollector } from "./otlp-collector.ts";

const ORIGIN = { serviceName: "parley", version: "1.2.3", track: "canary" } as const;
const cleanups: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});

test("without an endpoint tracing is off, and code that makes spans runs all the same", async () => {
  const tracing = start({ env: {} });
  expect(tracing.url).toBeUndefined();
  expect(await inAgentSpan(WORK, async () => traceFacts())).toEqual({});
});

test.each([
  ["OTLP_ENDPOINT", { endpoint: "http://c:4318", env: {} }, "http://c:4318/v1/traces"],
  ["a trailing slash", { endpoint: "http://c:4318/", env: {} }, "http://c:4318/v1/traces"],
  ["a whole URL", { endpoint: "http://c:4318/otlp/v1/traces", env: {} }, "http://c:4318/otlp/v1/traces"],
  ["OTEL_EXPORTER_OTLP_ENDPOINT", { env: { OTEL_EXPORTER_OTLP_ENDPOINT: "http://c" } }, "http://c/v1/traces"],
  [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, as it is",
    { env: { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "http://c/t", OTEL_EXPORTER_OTLP_ENDPOINT: "http://d" } },
    "http://c/t",
  ],
  [
    "OTLP_ENDPOINT before the standard names",
    { endpoint: "http://c", env: { OTEL_EXPORTER_OTLP_ENDPOINT: "http://d" } },
    "http://c/v1/traces",
  ],
  ["an empty name is none", { endpoint: "", env: { OTEL_EXPORTER_OTLP_ENDPOINT: "" } }, undefined],
  ["OTEL_SDK_DISABLED", { endpoint: "http://c", env: { OTEL_SDK_DISABLED: "true" } }, undefined],
])("where spans go: %s", (_, options, url) => {
  expect(start(options).url).toBe(url);
});

/** An observer that nothing is told to. */
const NOBODY = {
  onText: () => {},
  onAttempt: () => {},
  onUnsent: () => {},
  beforeAttempt: async () => {},
};

test("a tool call has a span in its agent's work, with its name and id and nothing that was said", async () => {
  const collector = await startCollector();
  const tracing = start({ endpoint: collector.url, env: {} });
  const tool = withToolSpans({
    name: "files.read",
    description: "",
    parameters: { type: "object" },
    idempotent: false,
    call: async () => Promise.reject(new TypeError("the purple elephant is not there")),
  });
  const call = { id: "t/2/1", signal: new AbortController().signal };
  await inAgentSpan(WORK, () => tool.call('{"path":"purple"}', call).catch(() => "told"));
  await tracing.shutdown();

  const [agent, span] = ["invoke_agent assistant", "execute_tool files.read"].map((name) =>
    collector.spans.find((one) => one.name === name),
  );
  expect(span?.parentSpanId).toBe(agent?.spanId);
  expect(span?.attributes).toMatchObject({
    "gen_ai.operation.name": "execute_tool",
    "gen_ai.tool.name": "files.read",
    "gen_ai.tool.call.id": "t/2/1",
    "gen_ai.agent.name": "assistant",
    "error.type": "TypeError",
  });
  expect(JSON.stringify(collector.spans)).not.toContain("purple");
});

test("a turn's spans arrive as one trace with the conventions' attributes", async () => {
  const collector = await startCollector();
  const tracing = start({ endpoint: collector.url, env: {} });
  const model = withChatSpans(answering(REPLY), { provider: "openai" });
  const rpc = trace.getTracer("test").startSpan("parley.chat.v1.ChatService/Chat");
  await context.with(trace.setSpan(context.active(), rpc), () =>
    inAgentSpan(WORK, async () => {
      await Promise.resolve();
      return model.call(REQUEST, { signal: new AbortController().signal, ...NOBODY });
    }),
  );
  rpc.end();
  await tracing.shutdown();

  expect(collector.requests[0]).toEqual({ path: "/v1/traces", contentType: "application/x-protobuf" });
  expect(collector.spans.map(({ name }) => name).toSorted()).toEqual([
    "chat gpt-4",
    "invoke_agent assistant",
    "parley.chat.v1.ChatService/Chat",
  ]);
  const [root, agent, chat] = ["parley.chat.v1.ChatService/Chat", "invoke_agent assistant", "chat gpt-4"].map((name) =>
    collector.spans.find((span) => span.name === name),
  );
  expect(new Set(collector.spans.map(({ traceId }) => traceId)).size).toBe(1);
  expect(agent).toMatchObject({
    parentSpanId: root?.spanId,
    kind: 1,
    statusCode: 0,
    attributes: {
      "gen_ai.operation.name": "invoke_agent",
      "gen_ai.provider.name": "openai",
      "gen_ai.agent.name": "assistant",
      "gen_ai.conversation.id": "s1",
      "gen_ai.request.model": "gpt-4",
      "parley.turn_id": "t1",
    },
  });
  expect(chat).toMatchObject({
    parentSpanId: agent?.spanId,
    kind: 3,
    statusCode: 0,
    attributes: {
      "gen_ai.operation.name": "chat",
      "gen_ai.provider.name": "openai",
      "gen_ai.agent.name": "assistant",
      "gen_ai.conversation.id": "s1",
      "gen_ai.request.model": "gpt-4",
      "gen_ai.request.temperature": 0.3,
      "gen_ai.request.max_tokens": 100,
      "gen_ai.response.model": "gpt-4-0613",
      "gen_ai.response.finish_reasons": ["stop"],
      "gen_ai.usage.input_tokens": 12,
      "gen_ai.usage.output_tokens": 5,
    },
  });
  expect(root?.resource).toMatchObject({
    "service.name": "parley",
    "service.version": "1.2.3",
    "parley.track": "canary",
  });
});

test("no content is in any span, failed calls included: neither messages nor an error's text", async () => {
  const collector = await startCollector();
  const tracing = start({ endpoint: collector.url, env: {} });
  const observer = { signal: new AbortController().signal, ...NOBODY };
  const failing: Model = { call: () => Promise.reject(new TypeError("SECRET in an error")) };
  await withChatSpans(answering(REPLY), { provider: "openai" }).call(REQUEST, observer);
  await inAgentSpan(WORK, () => withChatSpans(failing, { provider: "openai" }).call(REQUEST, observer)).catch(() => {});
  await tracing.shutdown();
  expect(collector.spans).toHaveLength(3);
  expect(collector.raw()).not.toContain("SECRET");
  const known = new Set<string>(Object.values(SPAN_ATTRIBUTES));
  expect(collector.spans.flatMap(({ attributes }) => Object.keys(attributes)).filter((key) => !known.has(key))).toEqual(
    [],
  );
  expect(collector.spans.map(({ events, statusMessage }) => ({ events, statusMessage }))).toEqual(
    Array(3).fill({ events: 0, statusMessage: "" }),
  );
});

test.each([
  [
    "a call that was made says what it used",
    new ModelCallFailure("MODEL_UNAVAILABLE", {
      model: "gpt-4",
      usage: { promptTokens: 9, completionTokens: 2, source: UsageSource.TOKENIZER_ESTIMATE },
    }),
    { "error.type": "MODEL_UNAVAILABLE", "gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 2 },
  ],
  ["a call that was not made says why", new Failure("MODEL_RATE_LIMITED"), { "error.type": "MODEL_RATE_LIMITED" }],
  ["a defect is told by its type", new RangeError("SECRET"), { "error.type": "RangeError" }],
])("a failed call's span has status error, and %s", async (_, error, attributes) => {
  const collector = await startCollector();
  const tracing = start({ endpoint: collector.url, env: {} });
  const model = withChatSpans({ call: () => Promise.reject(error) }, { provider: "openai" });
  const call = model.call(REQUEST, { signal: new AbortController().signal, ...NOBODY });
  await expect(call).rejects.toBe(error);
  await tracing.shutdown();
  expect(collector.spans).toMatchObject([{ name: "chat gpt-4", statusCode: 2, attributes }]);
});

test("log lines know the trace and the span that they are written in", async () => {
  const collector = await startCollector();
  const tracing = start({ endpoint: collector.url, env: {} });
  const facts = await inAgentSpan(WORK, async () => traceFacts());
  expect(traceFacts()).toEqual({});
  await tracing.shutdown();
  const [span] = collector.spans;
  expect(facts).toEqual({ trace_id: span?.traceId, span_id: span?.spanId });
});

test("a collector that refuses spans fails nothing: what is refused on the way and at the end is logged as JSON", async () => {
  vi.stubEnv("OTEL_BSP_SCHEDULE_DELAY", "1");
  cleanups.push(async () => void vi.unstubAllEnvs());
  const collector = await startCollector({ status: 400 });
  const { lines, logger } = logged();
  const tracing = start({ endpoint: collector.url, env: {}, logger });
  await inAgentSpan(WORK, async () => {});
  await eventually(() => expect(lines().map(({ msg }) => msg)).toContain("OpenTelemetry complains"));
  await inAgentSpan(WORK, async () => {});
  await expect(tracing.shutdown()).resolves.toBeUndefined();
  expect(lines().map(({ msg }) => msg)).toContain("the last spans were not sent");
});

test("a collector that is gone holds up a shutdown for no more than its 3 s", async () => {
  const collector = await startCollector();
  await collector.close();
  const { lines, logger } = logged();
  const tracing = start({ endpoint: collector.url, env: {}, logger });
  await inAgentSpan(WORK, async () => {});
  await tracing.shutdown();
  expect(lines().map(({ msg }) => msg)).toEqual(["the last spans were not sent"]);
}, 4_500);

test("after a shutdown, tracing can be started again", async () => {
  for (let run = 0; run < 2; run++) {
    const collector = await startCollector();
    const tracing = start({ endpoint: collector.url, env: {} });
    await inAgentSpan(WORK, async () => {});
    await tracing.shutdown();
    expect(collector.spans).toHaveLength(1);
  }
});

const WORK = { agent: "assistant", model: "gpt-4", provider: "openai", sessionId: "s1", turnId: "t1" } as const;

const REQUEST: ModelRequest = {
  model: "gpt-4",
  messages: [{ role: "user", content: "SECRET question" }],
  tools: [],
  temperature: 0.3,
  maxOutputTokens: 100,
  maxTotalTokens: 1_000,
  timeoutMs: 1_000,
};

const REPLY: ModelReply = {
  model: "gpt-4-0613",
  text: "SECRET answer",
  toolCalls: [],
  ended: "stop",
  usage: { promptTokens: 12, completionTokens: 5, source: UsageSource.PROVIDER },
};

function answering(reply: ModelReply): Model {
  return { call: async () => reply };
}

function start(options: Omit<Parameters<typeof startTracing>[0], keyof typeof ORIGIN>): Tracing {
  const tracing = startTracing({ ...ORIGIN, ...options });
  cleanups.push(() => tracing.shutdown());
  return tracing;
}

function logged() {
  const written: string[] = [];
  const write = (line: string): void => void written.push(line);
  const logger = createConsoleLogger({ level: "warn", service: "parley", version: "0", track: "stable", write });
  return { logger, lines: () => written.map((line) => JSON.parse(line)) };
}

async function startCollector(options?: { status: number }): Promise<OtlpCollector> {
  const collector = await startOtlpCollector(options);
  cleanups.push(() => collector.close());
  return collector;
}
