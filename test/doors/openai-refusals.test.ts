import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { Failure, type FailureReason } from "../../src/failure.ts";
import { errorTable } from "../../src/rpc/error-table.ts";
import { OPENAI_FORMS, openAiError } from "../../src/rpc/openai-errors.ts";
import { type OpenAiRefusal, readCompletionRequest } from "../../src/rpc/openai-request.ts";

const docs = readFileSync(join(import.meta.dirname, "../../docs/openai.md"), "utf8");

/** A request with everything that is needed, and more. */
const request = (more: object) => ({ model: "m", messages: [{ role: "user", content: "hi" }], ...more }) as never;

/** What is wrong with a request; undefined: nothing. */
function refusalOf(body: never): { code: string; param: string } | undefined {
  try {
    readCompletionRequest(body);
    return undefined;
  } catch (error) {
    const { code, param } = error as OpenAiRefusal;
    return { code, param };
  }
}

describe("a request", () => {
  test.each<[string, object]>([
    ["nothing", {}],
    ["its defaults", { n: 1, logprobs: false, top_p: 1, presence_penalty: 0, response_format: { type: "text" } }],
    [
      "null for all that is optional",
      { n: null, stop: null, tools: null, user: null, temperature: null, stream: null },
    ],
    ["no tools of its own", { tools: [], tool_choice: "none", parallel_tool_calls: true }],
    [
      "what only stores or hurries",
      { store: true, service_tier: "flex", prompt_cache_key: "k", safety_identifier: "s" },
    ],
  ])("may say %s", (_, more) => {
    expect(refusalOf(request(more))).toBeUndefined();
  });

  test.each([
    ["messages[0]", [null]],
    ["messages[0].content", [{ role: "user", content: [1] }]],
    ["messages[1].role", [{ role: "user", content: "hi" }, { role: 5 }]],
  ])("is read up to what is wrong: %s", (param, messages) => {
    // To look for more, in as much as a request may have, would hold everybody up.
    const later = Object.defineProperty({}, "role", {
      enumerable: true,
      get: () => {
        throw new Error("read");
      },
    });
    expect(refusalOf(request({ messages: [...messages, later] }))).toEqual({ code: "invalid_value", param });
  });

  test.each([
    ["n", 2],
    ["tools", [{ type: "function", function: { name: "f" } }]],
    ["tool_choice", "required"],
    ["functions", [{ name: "f" }]],
    ["logprobs", true],
    ["top_logprobs", 5],
    ["response_format", { type: "json_object" }],
    ["modalities", ["text", "audio"]],
    ["stop", ["END"]],
    ["top_p", 0.5],
    ["presence_penalty", 1],
    ["frequency_penalty", 1],
    ["logit_bias", { 50256: -100 }],
    ["seed", 7],
    ["reasoning_effort", "high"],
    ["verbosity", "low"],
    ["audio", { voice: "alloy", format: "wav" }],
    ["web_search_options", {}],
  ])("may not ask for %s, for it would not get it; the docs say so", (param, value) => {
    expect(refusalOf(request({ [param]: value }))).toEqual({ code: "unsupported_parameter", param });
    expect(docs).toContain(`\`${param}\``);
  });

  test.each([
    [{ model: undefined }, "missing_required_parameter", "model"],
    [{ model: "" }, "invalid_value", "model"],
    [{ messages: undefined }, "missing_required_parameter", "messages"],
    [{ messages: [] }, "invalid_value", "messages"],
    [{ messages: "hi" }, "invalid_value", "messages"],
    [{ messages: [{ role: "user", content: 7 }] }, "invalid_value", "messages[0].content"],
    [{ messages: [{ role: "user", content: "\ud800" }] }, "invalid_value", "messages[0].content"],
    [{ messages: [{ role: "king", content: "hi" }] }, "invalid_value", "messages[0].role"],
    [{ messages: [{ role: "assistant", content: "hi" }] }, "invalid_value", "messages"],
    [{ messages: [{ role: "system", content: "hi" }] }, "invalid_value", "messages"],
    [{ messages: [{ role: "tool", content: "hi", tool_call_id: "1" }] }, "unsupported_value", "messages[0].role"],
    [
      { messages: [{ role: "assistant", content: null, tool_calls: [{ id: "1" }] }] },
      "unsupported_value",
      "messages[0].tool_calls",
    ],
    [
      { messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "data:," } }] }] },
      "unsupported_value",
      "messages[0].content[0].type",
    ],
    [{ temperature: 3 }, "invalid_value", "temperature"],
    [{ max_tokens: 0 }, "invalid_value", "max_tokens"],
    [{ max_completion_tokens: 1.5 }, "invalid_value", "max_completion_tokens"],
    [{ stream: "yes" }, "invalid_value", "stream"],
    [{ stream_options: { include_usage: 1 } }, "invalid_value", "stream_options.include_usage"],
    [{ metadata: { a: 1 } }, "invalid_value", "metadata.a"],
    [{ temprature: 1 }, "unknown_parameter", "temprature"],
  ])("%j is refused as %s of %s", (more, code, param) => {
    expect(refusalOf(JSON.parse(JSON.stringify(request(more))) as never)).toEqual({ code, param });
  });

  test.each([[[]], ["text"], [null], [7]])("%j is none", (body) => {
    expect(refusalOf(body as never)).toEqual({ code: "invalid_value", param: "" });
  });

  test.each(["__proto__", "constructor", "toString"])("%s is a name like any other", (name) => {
    const body = JSON.parse(`{"model":"m","messages":[{"role":"user","content":"hi"}],"${name}":1}`);
    expect(refusalOf(body as never)).toEqual({ code: "unknown_parameter", param: name });
  });

  test.each([
    [[], null, "The body must be of the type object."],
    [{ __proto__: null, constructor: 1 }, "constructor", "constructor is no parameter that is known here."],
    [request({ temperature: 3 }), "temperature", "temperature must be 2 or less."],
    [request({ messages: [{ content: "hi" }] }), "messages[0].role", "messages[0].role must be of the type string."],
  ])("%j: what is wrong is a sentence", (body, param, message) => {
    let thrown: unknown;
    try {
      readCompletionRequest(Array.isArray(body) || "messages" in body ? (body as never) : request(body));
    } catch (error) {
      thrown = error;
    }
    expect(openAiError(thrown as Failure).body.error).toMatchObject({ param, message });
  });
});

const reasons = Object.keys(errorTable) as FailureReason[];

test.each(reasons)("%s has an error in the form of that API, which quotes nothing", (reason) => {
  const { status, body, header } = openAiError(new Failure(reason, {}, { cause: new Error("secret") }));
  expect(status).toBeGreaterThanOrEqual(400);
  expect(body.error).toEqual({
    message: OPENAI_FORMS[reason]?.message ?? errorTable[reason].message,
    type: expect.stringMatching(/^[a-z_]+$/),
    param: null,
    code: expect.stringMatching(/^[a-z_]+$/),
  });
  expect(header.get("x-should-retry")).toBe(String(errorTable[reason].retryable));
  expect(header.has("retry-after")).toBe(errorTable[reason].retryable);
});

test("a retry that is to come too late is none", () => {
  const { header } = openAiError(new Failure("BUDGET_EXHAUSTED", { retryAfterMs: 3_600_000 }));
  expect([header.get("x-should-retry"), header.get("retry-after")]).toEqual(["false", "3600"]);
});

test("a mesh ejects no pod for what a model, a budget or a caller is to blame for", () => {
  const ours = reasons.filter((reason) => openAiError(new Failure(reason)).status >= 500);
  expect(ours.filter((reason) => !["INTERNAL", "UNAVAILABLE"].includes(nameOf(reason)))).toEqual([
    "GRPC_NOT_POSSIBLE",
    "NOT_IMPLEMENTED",
    "DEADLINE_EXCEEDED",
  ]);
});

test("the docs have a row for each reason with a form of its own, and no other", () => {
  const rows = docs
    .split("\n")
    .filter((line) => /^\| `[A-Z_]+`/.test(line))
    .flatMap((line) => {
      const [names = "", status, type, code] = line.slice(2, -2).split(" | ");
      return names.split(", ").map((name) => [name, status, type, code].join(" "));
    });
  const expected = Object.entries(OPENAI_FORMS).map(
    ([reason, { status, type, code }]) => `\`${reason}\` ${status} \`${type}\` \`${code}\``,
  );
  expect(rows.toSorted()).toEqual(expected.toSorted());
});

function nameOf(reason: FailureReason): string {
  return { 13: "INTERNAL", 14: "UNAVAILABLE" }[errorTable[reason].code as number] ?? "";
}
