import OpenAI from "openai";
import { expect, onTestFinished, test } from "vitest";
import { type ScriptedCall, startScriptedModel } from "../../src/providers/scripted-model.ts";

async function scripted(script: readonly ScriptedCall[], options: Parameters<typeof startScriptedModel>[1] = {}) {
  const model = await startScriptedModel(script, options);
  onTestFinished(() => model.close());
  const client = new OpenAI({ baseURL: model.baseUrl, apiKey: "none", maxRetries: 0 });
  const ask = (content: string, { name = "gpt-4o", system = "You are helpful.", tools = [] as string[] } = {}) =>
    client.chat.completions
      .stream({
        model: name,
        messages: [
          { role: "system", content: system },
          { role: "user", content },
        ],
        ...(tools.length === 0
          ? {}
          : { tools: tools.map((tool) => ({ type: "function" as const, function: { name: tool } })) }),
        stream_options: { include_usage: true },
      })
      .finalChatCompletion();
  return { model, ask };
}

test("it answers in the script's order: text, tool calls, usage, refusals", async () => {
  const { model, ask } = await scripted([
    { text: "two words", usage: { promptTokens: 7, completionTokens: 3 } },
    {
      toolCalls: [
        { name: "orders.look_up", arguments: { order: "A-17" } },
        { name: "broken", arguments: "{" },
      ],
    },
    { status: 429 },
  ]);
  const first = await ask("a");
  expect([first.choices[0]?.message.content, first.choices[0]?.finish_reason]).toEqual(["two words", "stop"]);
  expect(first.usage).toMatchObject({ prompt_tokens: 7, completion_tokens: 3, total_tokens: 10 });
  const second = await ask("b");
  expect(second.choices[0]?.finish_reason).toBe("tool_calls");
  expect(
    second.choices[0]?.message.tool_calls?.map((call) =>
      call.type === "function" ? [call.function.name, call.function.arguments] : [],
    ),
  ).toEqual([
    ["orders__look_up", '{"order":"A-17"}'],
    ["broken", "{"],
  ]);
  await expect(ask("c")).rejects.toMatchObject({ status: 429 });
  expect(() => model.verify()).not.toThrow();
  expect(model.calls.map(({ messages }) => messages.at(-1)?.content)).toEqual(["a", "b", "c"]);
});

test.each<[string, ScriptedCall["expect"], RegExp]>([
  ["another model", { model: "gpt-4" }, /model "gpt-4o", not "gpt-4"/],
  ["another agent", { system: "You are rude." }, /system message "You are helpful\." lacks "You are rude\."/],
  ["another message", { last: "bye" }, /newest message "hello" lacks "bye"/],
  ["other tools", { tools: ["files.read", "transfer_to_b"] }, /tools offered: none, not files__read, transfer_to_b/],
])("a call of %s is refused, and the script waits for the right one", async (_, expected, problem) => {
  const { model, ask } = await scripted([{ expect: expected ?? {}, text: "yes" }]);
  await expect(ask("hello")).rejects.toMatchObject({ status: 400, code: "unexpected_call" });
  expect(model.problems).toEqual([expect.stringMatching(problem)]);
  expect(() => model.verify()).toThrow(/1 of the script's 1 calls were not made/);
  const right = await ask("bye", { name: "gpt-4", system: "You are rude.", tools: ["transfer_to_b", "files__read"] });
  expect(right.choices[0]?.message.content).toBe("yes");
  expect(() => model.verify()).toThrow(problem);
});

test("a call beyond the script's end is refused", async () => {
  const { model, ask } = await scripted([{ text: "only" }]);
  await ask("a");
  await expect(ask("b")).rejects.toMatchObject({ status: 400 });
  expect(() => model.verify()).toThrow("Call 2 was not expected: the script has no further calls.");
});

test("for trying by hand it begins anew, and takes the next call that fits", async () => {
  const { ask } = await scripted([{ text: "asked" }, { expect: { last: "yes" }, text: "done" }, { text: "left" }], {
    repeat: true,
  });
  const said = async (content: string) => (await ask(content)).choices[0]?.message.content;
  expect([await said("a"), await said("yes"), await said("b")]).toEqual(["asked", "done", "left"]);
  expect([await said("a"), await said("no"), await said("a")]).toEqual(["asked", "left", "asked"]);
});

test("a script with a field that does not exist is refused", async () => {
  const wrong = [{ text: "a" }, { expect: { lats: "b" }, reply: "c" }] as unknown as ScriptedCall[];
  await expect(startScriptedModel(wrong)).rejects.toThrow(
    new TypeError("call 2 of the script: no such field: reply, expect.lats"),
  );
});
