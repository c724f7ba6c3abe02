import { createClient } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { drained } from "../rpc/refusals.ts";
import { threeWires } from "../rpc/wires.ts";
import { useTestApp } from "../support/use-app.ts";

// Turns that end otherwise than by the model's own stop, and well all the same: OK, with what was said.

const MODELS = ["sim-terminate", "sim-length", "sim-content-filter", "sim-tool-loop", "gpt-4o"] as const;

const app = useTestApp({
  // JSON is YAML.
  yaml: JSON.stringify({
    agents: Object.fromEntries(MODELS.map((model) => [model, { model }])),
    teams: Object.fromEntries(MODELS.map((agent) => [agent, { agent, max_rounds: 3 }])),
    default_team: "gpt-4o",
  }),
});

const cases: [(typeof MODELS)[number], FinishReason, string, number][] = [
  ["gpt-4o", FinishReason.STOP, "You said: “hello”. I am a simulated model: I repeat what I am told.", 1],
  ["sim-terminate", FinishReason.TERMINATED, "You said: “hello”. I am a simulated model: I repeat what I am told.", 1],
  ["sim-length", FinishReason.TOKEN_BUDGET, "You said: “hello”. I am a simulated", 1],
  ["sim-content-filter", FinishReason.CONTENT_FILTER, "You said: “hello”. I am a simulated", 1],
  ["sim-tool-loop", FinishReason.MAX_ROUNDS, "", 3],
];

describe.each(threeWires)("on $name", (wire) => {
  test.each(cases)("%s", async (agentTeam, finishReason, text, modelCalls) => {
    const transport = wire.transport(app.url);
    const chat = createClient(ChatService, transport);
    const sessions = createClient(SessionService, transport);
    const callsBefore = app.simulated.callCount;
    const request = { message: "hello", userId: "u1", agentTeam };
    const reply = await chat.chat(request);
    expect(app.simulated.callCount - callsBefore).toBe(modelCalls);
    expect(reply).toMatchObject({ finishReason, response: text });

    const events = (await drained(chat.streamChat(request))).map(({ event }) => event);
    const deltas = events.map((event) => (event.case === "textDelta" ? event.value.text : "")).join("");
    const completed = events.flatMap((event) => (event.case === "messageCompleted" ? [event.value.content] : []));
    expect([deltas, completed]).toEqual([text, text === "" ? [] : [text]]);
    expect(events.at(-1)).toMatchObject({
      case: "turnCompleted",
      value: { finishReason, termination: finishReason === FinishReason.TERMINATED ? "TextMentionTermination" : "" },
    });

    const { messages } = await sessions.listMessages({ sessionId: reply.sessionId });
    expect(messages.map(({ content }) => content)).toEqual(text === "" ? ["hello"] : ["hello", text]);
    const { turn } = await chat.getTurn({ turnId: reply.turnId });
    expect(turn).toMatchObject({ finishReason, tokenUsage: reply.tokenUsage });
  });
});

describe("max_tokens", () => {
  const chatOf = () => createClient(ChatService, threeWires[0].transport(app.url));
  const bounds = () => app.simulated.calls.at(-1)?.body.max_completion_tokens;

  test("takes the place of MAX_TOKENS for one turn: the model may say what prompt and bound leave", async () => {
    const { tokenUsage } = await chatOf().chat({ message: "hello", userId: "u1" });
    const prompt = tokenUsage?.promptTokens ?? 0;
    expect(bounds()).toBe(4_000 - prompt);
    await chatOf().chat({ message: "hello", userId: "u1", maxTokens: 700 });
    expect(bounds()).toBe(700 - prompt);
    await chatOf().chat({ message: "hello", userId: "u1" });
    expect(bounds()).toBe(4_000 - prompt);
  });

  test("bounds what is said, and cuts what is remembered", async () => {
    const { sessionId } = await chatOf().chat({ message: `one ${"x ".repeat(400)}`, userId: "u1" });
    const request = { sessionId, message: "two", userId: "u1" };
    await chatOf().chat({ ...request, maxTokens: 700 });
    expect(app.simulated.calls.at(-1)?.messages.map(({ role }) => role)).toEqual(["system", "user"]);
    await chatOf().chat(request);
    expect(app.simulated.calls.at(-1)?.messages.map(({ role }) => role)).toEqual([
      "system",
      "user",
      "assistant",
      "user",
      "assistant",
      "user",
    ]);
    const long = await chatOf().chat({ message: "y ".repeat(140), userId: "u1", maxTokens: 700 });
    expect(long.tokenUsage?.totalTokens).toBeLessThanOrEqual(700);
  });
});
