import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { tokenizerFor } from "../../src/engine/tokenizer.ts";
import { type SimulatedModel, startSimulatedModel } from "../../src/providers/simulated-model.ts";
import { scriptFor } from "../../src/providers/simulated-scripts.ts";
import { eventually } from "../support/eventually.ts";

// The simulated model by itself, through nothing but fetch: what it says on the wire, and what its own books have.

let simulated: SimulatedModel;
beforeAll(async () => {
  simulated = await startSimulatedModel({ chunkDelayMs: 0 });
});
afterAll(() => simulated.close());

const CONVERSATION = [
  { role: "system", content: "You are helpful." },
  { role: "user", content: "I am Ada" },
  { role: "assistant", content: "Hello Ada" },
  { role: "user", content: "I live in Bern" },
  { role: "assistant", content: "Nice" },
  { role: "user", content: "Who am I?" },
];

const post = (body: Record<string, unknown>, signal?: AbortSignal): Promise<Response> =>
  fetch(`${simulated.baseUrl}/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: "gpt-4", messages: CONVERSATION, ...body }),
    ...(signal === undefined ? {} : { signal }),
  });

const whole = { stream: false };
const streamed = { stream: true, stream_options: { include_usage: true } };

test("its reply has the last message and all earlier texts of the user, and no other", async () => {
  const { choices } = (await (await post(whole)).json()) as { choices: { message: { content: string } }[] };
  const content = choices[0]?.message.content ?? "";
  expect(content).toContain("You said: “Who am I?”");
  expect(content).toContain("“I am Ada”, “I live in Bern”");
  expect(content).not.toContain("Hello Ada");
  expect(content).not.toContain("helpful");
});

test("the same call has the same answer, byte for byte", async () => {
  const bodies = await Promise.all([1, 2].map(async () => (await post(streamed)).text()));
  expect(bodies[0]).toContain("data: [DONE]");
  expect(bodies[1]).toBe(bodies[0]);
});

test("streamed and whole it says the same, and reports the same usage: that of its own books", async () => {
  const { text, usage } = readEvents(await (await post(streamed)).text());
  const inStream = simulated.calls.at(-1);
  const body = (await (await post(whole)).json()) as { choices: { message: { content: string } }[]; usage: unknown };
  expect(text).toBe(body.choices[0]?.message.content);
  expect(usage).toEqual(body.usage);
  const tokenizer = tokenizerFor("gpt-4");
  const promptTokens = tokenizer.countPrompt(CONVERSATION.map(({ content }) => ({ role: "user", content })));
  const completionTokens = tokenizer.countText(text);
  expect(usage).toEqual({
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
  });
  expect(inStream).toMatchObject({ promptTokens, completionTokens, state: "answered", messages: CONVERSATION });
});

test("usage is in a stream only when it is asked for", async () => {
  expect(readEvents(await (await post({ stream: true })).text()).usage).toBeUndefined();
});

test.each(["max_tokens", "max_completion_tokens"])("its answer keeps to %s", async (bound) => {
  const { text, finishReason, usage } = readEvents(await (await post({ ...streamed, [bound]: 5 })).text());
  expect(finishReason).toBe("length");
  expect(text).not.toBe("");
  expect(usage?.completion_tokens).toBeLessThanOrEqual(5);
});

test("it counts every call", async () => {
  const before = simulated.callCount;
  await Promise.all(["gpt-4", "sim-500", "sim-429"].map(async (model) => (await post({ ...whole, model })).text()));
  expect(simulated.callCount).toBe(before + 3);
});

test("its books say so when a client closes the socket", async () => {
  const stop = new AbortController();
  const before = simulated.callCount;
  const response = await post({ ...streamed, model: "sim-stall-midway" }, stop.signal);
  expect(response.status).toBe(200);
  expect(simulated.calls[before]?.state).toBe("open");
  stop.abort();
  await eventually(() => expect(simulated.calls[before]?.state).toBe("closed_by_client"));
  expect(simulated.calls[before]?.completionTokens).toBeGreaterThan(0);
});

describe("a fault by the model's name", () => {
  test.each([
    ["sim-400", 400],
    ["sim-401", 401],
    ["sim-403", 403],
    ["sim-404", 404],
    ["sim-429", 429],
    ["sim-500", 500],
  ])("%s is status %i, with an error of OpenAI's shape", async (model, status) => {
    const response = await post({ ...streamed, model });
    expect(response.status).toBe(status);
    expect(await response.json()).toHaveProperty("error.message");
    expect(response.headers.get("retry-after")).toBe(status === 429 ? "7" : null);
  });

  test("sim-html is a page", async () => {
    const response = await post({ ...streamed, model: "sim-html" });
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("text/html");
    expect(await response.text()).toContain("<html>");
  });

  test("sim-empty is a stream that says nothing but that it is done", async () => {
    expect(await (await post({ ...streamed, model: "sim-empty" })).text()).toBe("data: [DONE]\n\n");
  });

  test("sim-malformed says half of its reply and then something that is no JSON", async () => {
    const body = await (await post({ ...streamed, model: "sim-malformed" })).text();
    expect(body).toContain('"content":"You"');
    expect(body).toContain("{this is no JSON");
  });

  test("sim-cut says half of its reply and closes the socket", async () => {
    const before = simulated.callCount;
    const { body } = await post({ ...streamed, model: "sim-cut" });
    let text = "";
    const reading = (async () => {
      for await (const piece of body ?? []) text += Buffer.from(piece).toString();
    })();
    await expect(reading).rejects.toThrow();
    expect(text).toContain("You");
    expect(text).not.toContain("[DONE]");
    expect(simulated.calls[before]?.state).toBe("cut");
  });

  test.each([
    ["sim-stall", false],
    ["sim-stall-midway", true],
  ])("%s falls silent without an end", async (model, speaks) => {
    const stop = new AbortController();
    const { body } = await post({ ...streamed, model }, stop.signal);
    let text = "";
    let ended = false;
    const reading = (async () => {
      for await (const piece of body ?? []) text += Buffer.from(piece).toString();
      ended = true;
    })().catch(() => undefined);
    await eventually(() => expect(text.includes("You")).toBe(speaks));
    expect(ended).toBe(false);
    expect(text).not.toContain('finish_reason":"stop');
    stop.abort();
    await reading;
  });

  test.each([
    ["sim-length", "length"],
    ["sim-content-filter", "content_filter"],
  ])("%s ends half its reply by %s", async (model, end) => {
    const { text, finishReason } = readEvents(await (await post({ ...streamed, model })).text());
    expect(finishReason).toBe(end);
    expect(text).not.toBe("");
  });

  test("sim-no-usage reports no usage, though it is asked for", async () => {
    const { usage, finishReason } = readEvents(await (await post({ ...streamed, model: "sim-no-usage" })).text());
    expect(finishReason).toBe("stop");
    expect(usage).toBeUndefined();
  });

  test("sim-terminate cuts TERMINATE across two chunks at its reply's end", async () => {
    const { pieces } = readEvents(await (await post({ ...streamed, model: "sim-terminate" })).text());
    expect(pieces.slice(-2)).toEqual(["\n\nTERMI", "NATE"]);
  });

  test("sim-tool-loop asks for a tool each time", async () => {
    const body = await (await post({ ...streamed, model: "sim-tool-loop" })).text();
    expect(body).toContain('"name":"look_up"');
    expect(readEvents(body).finishReason).toBe("tool_calls");
  });

  test.each([
    ["sim-slow", 100, undefined],
    ["sim-3x20", 20, 3],
    ["gpt-4", 7, undefined],
  ])("%s pauses before each chunk", (model, delayMs, chunks) => {
    const tokenizer = tokenizerFor(model);
    const script = scriptFor(model, { messages: CONVERSATION, tools: [], chunkDelayMs: 7, maxTokens: 0, tokenizer });
    expect(new Set(script.chunks.map((chunk) => chunk.delayMs))).toEqual(new Set([delayMs]));
    expect(script.chunks).toHaveLength(chunks ?? script.chunks.length);
    expect(script.chunks.length).toBeGreaterThan(2);
  });
});

interface Chunk {
  readonly choices: readonly { readonly delta: { readonly content?: string }; readonly finish_reason: string | null }[];
  readonly usage?: {
    readonly prompt_tokens: number;
    readonly completion_tokens: number;
    readonly total_tokens: number;
  };
}

/** What a stream's events say. */
function readEvents(body: string) {
  const chunks = body
    .split("\n\n")
    .filter((event) => event.startsWith("data: {"))
    .map((event) => JSON.parse(event.slice("data: ".length)) as Chunk);
  const choices = chunks.flatMap((chunk) => chunk.choices);
  const pieces = choices.flatMap(({ delta }) => (delta.content === undefined ? [] : [delta.content]));
  return {
    pieces,
    text: pieces.join(""),
    finishReason: choices.at(-1)?.finish_reason,
    usage: chunks.find((chunk) => chunk.usage !== undefined)?.usage,
  };
}
