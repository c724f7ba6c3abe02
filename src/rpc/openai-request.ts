import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import * as z from "zod";
import { Failure } from "../failure.ts";
import type { EarlierMessage, TurnRequest } from "../turns/admission.ts";

/** What a chat completion asks for, in our words. */
export interface CompletionRequest {
  /** Name of an agent team. */
  readonly model: string;
  /** The last message: the turn's. */
  readonly message: string;
  /** The messages before it, oldest first. */
  readonly earlier: EarlierMessage[];
  readonly wishes: NonNullable<TurnRequest["wishes"]>;
  /** Empty: none is named. */
  readonly user: string;
  readonly metadata: JsonObject | undefined;
  readonly stream: boolean;
  readonly includeUsage: boolean;
}

/** A request that OpenAI's API would take and this one does not, or that neither would. */
export class OpenAiRefusal extends Failure {
  /** `error.code`. */
  readonly code: string;
  /** `error.param`: the parameter's path. */
  readonly param: string;

  constructor({ code, param, description }: { code: string; param: string; description: string }) {
    super("INVALID_FIELD", { fields: [{ field: param, description }] });
    this.code = code;
    this.param = param;
  }
}

/**
 * Parameters that change an answer in a way that agents here cannot, with the values that change nothing; null is one for
 * all of them. To pass over the others would give answers that the caller did not ask for.
 */
const UNSUPPORTED: Readonly<Record<string, readonly JsonValue[]>> = {
  n: [1],
  tools: [[]],
  tool_choice: ["none", "auto"],
  functions: [[]],
  function_call: ["none", "auto"],
  logprobs: [false],
  top_logprobs: [0],
  response_format: [{ type: "text" }],
  modalities: [["text"]],
  stop: [[]],
  top_p: [1],
  presence_penalty: [0],
  frequency_penalty: [0],
  logit_bias: [{}],
  seed: [],
  audio: [],
  web_search_options: [],
  reasoning_effort: [],
  verbosity: [],
};

/** Parameters that change no answer: how it is stored, cached, or hurried. */
const WITHOUT_EFFECT = [
  "store",
  "service_tier",
  "safety_identifier",
  "prompt_cache_key",
  "prompt_cache_retention",
  "prediction",
  "parallel_tool_calls",
];

const passedOver = Object.fromEntries(
  [...Object.keys(UNSUPPORTED), ...WITHOUT_EFFECT].map((name) => [name, z.unknown().optional()]),
);

const text = z.string().refine((given) => given.isWellFormed(), { error: "must be valid Unicode" });
const content = z.union([text, listOf(z.looseObject({ type: z.string(), text: text.optional() }))], {
  error: "must be a string or an array of parts",
});
const tokens = z.int().min(1).nullish();

const requestSchema = z.strictObject({
  ...passedOver,
  model: z.string({ error: "must name a model" }).min(1, { error: "must name a model" }),
  messages: listOf(z.looseObject({ role: z.string(), content: content.nullish() }), {
    error: "must be an array of messages",
    empty: "must have a message",
  }),
  user: z.string().nullish(),
  metadata: z.record(z.string(), z.string()).nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  max_tokens: tokens,
  max_completion_tokens: tokens,
});

/** A list that is read up to the first item that is wrong: zod's own looks for all, which in 1 MiB of them takes half a second. */
function listOf<Item extends z.ZodType>(item: Item, { error, empty }: { error?: string; empty?: string } = {}) {
  return z
    .array(z.unknown(), { error })
    .min(empty === undefined ? 0 : 1, { error: empty })
    .transform((values, context) => {
      const items: z.output<Item>[] = [];
      for (const [index, value] of values.entries()) {
        const parsed = item.safeParse(value, { error: ruleOf });
        if (!parsed.success) {
          for (const issue of parsed.error.issues) context.addIssue({ ...issue, path: [index, ...issue.path] });
          return z.NEVER;
        }
        items.push(parsed.data);
      }
      return items;
    });
}

type RequestMessage = z.infer<typeof requestSchema>["messages"][number];

/** Reads the body of a chat completion. Throws the {@link OpenAiRefusal} of the first thing that is wrong with it. */
export function readCompletionRequest(body: JsonValue): CompletionRequest {
  const parsed = requestSchema.safeParse(body, { error: ruleOf });
  if (!parsed.success) throw refusalOf(parsed.error, body);
  const given = parsed.data;
  for (const [name, neutral] of Object.entries(UNSUPPORTED)) checkUnsupported(name, given, neutral);

  const said = given.messages.map((message, index) => ({ role: roleOf(message, index), text: textOf(message, index) }));
  const instructions = said.flatMap(({ role, text }) => (role === "system" && text !== "" ? [text] : []));
  const spoken = said.flatMap(({ role, text: content }) => (role === "system" ? [] : [{ role, content }]));
  const last = spoken.pop();
  if (last?.role !== "user") throw refusal("invalid_value", "messages", "must end with a message of the user");
  const maxOutputTokens = given.max_completion_tokens ?? given.max_tokens;
  return {
    model: given.model,
    message: last.content,
    earlier: spoken.filter(({ content }) => content !== ""),
    wishes: {
      ...(instructions.length === 0 ? {} : { instructions: instructions.join("\n\n") }),
      ...(typeof given.temperature === "number" ? { temperature: given.temperature } : {}),
      ...(typeof maxOutputTokens === "number" ? { maxOutputTokens } : {}),
    },
    user: given.user ?? "",
    metadata: given.metadata ?? undefined,
    stream: given.stream ?? false,
    includeUsage: given.stream_options?.include_usage ?? false,
  };
}

/** Whose words a message is; `developer` is what newer models call `system`. */
function roleOf(
  { role, tool_calls: calls, function_call: call }: RequestMessage,
  index: number,
): "system" | EarlierMessage["role"] {
  const at = `messages[${index}]`;
  switch (role) {
    case "system":
    case "developer":
      return "system";
    case "user":
      return "user";
    case "assistant":
      if (isSet(calls) || isSet(call)) throw refusal("unsupported_value", `${at}.tool_calls`, TOOLS_ARE_OURS);
      return "assistant";
    case "tool":
    case "function":
      throw refusal("unsupported_value", `${at}.role`, TOOLS_ARE_OURS);
    default:
      throw refusal("invalid_value", `${at}.role`, "must be system, developer, user or assistant");
  }
}

const TOOLS_ARE_OURS = "is not supported: the agents' tools are run here, and clients have none of their own";

function textOf({ content }: RequestMessage, index: number): string {
  if (typeof content === "string") return content;
  const texts = (content ?? []).map(({ type, text }, part) => {
    if (type === "text" && text !== undefined) return text;
    throw refusal(
      "unsupported_value",
      `messages[${index}].content[${part}].type`,
      "must be text: agents read no other",
    );
  });
  return texts.join("\n");
}

function checkUnsupported(name: string, given: Readonly<Record<string, unknown>>, neutral: readonly JsonValue[]): void {
  const value = given[name];
  if (value === undefined || value === null) return;
  if (neutral.some((harmless) => JSON.stringify(harmless) === JSON.stringify(value))) return;
  if (neutral.length === 0) throw refusal("unsupported_parameter", name, "is not supported here");
  const harmless = neutral.map((one) => JSON.stringify(one)).join(" or ");
  throw refusal("unsupported_parameter", name, `is not supported here, but for ${harmless}`);
}

/** What a value has to be, where the schema does not say so itself. */
function ruleOf(issue: z.core.$ZodRawIssue): string | undefined {
  switch (issue.code) {
    case "invalid_type":
      return `must be of the type ${issue.expected}`;
    case "too_small":
      return `must be ${issue.minimum} or more`;
    case "too_big":
      return `must be ${issue.maximum} or less`;
    default:
      return undefined;
  }
}

/** Rules and names only: what the request said is nobody's to read in an error. */
function refusalOf({ issues }: z.ZodError, body: JsonValue): OpenAiRefusal {
  const [issue] = issues;
  if (issue?.code === "unrecognized_keys") {
    return refusal("unknown_parameter", issue.keys[0] ?? "", "is no parameter that is known here");
  }
  const [name, ...deeper] = issue?.path ?? [];
  const isMissing = name !== undefined && deeper.length === 0 && !Object.hasOwn(Object(body), name);
  return refusal(isMissing ? "missing_required_parameter" : "invalid_value", pathOf(issue), issue?.message ?? "");
}

function pathOf(issue: z.core.$ZodIssue | undefined): string {
  let path = "";
  for (const step of issue?.path ?? []) {
    if (typeof step === "number") path += `[${step}]`;
    else path += path === "" ? String(step) : `.${String(step)}`;
  }
  return path;
}

function refusal(code: string, param: string, description: string): OpenAiRefusal {
  return new OpenAiRefusal({ code, param, description });
}

function isSet(value: unknown): boolean {
  return value !== undefined && value !== null && !(Array.isArray(value) && value.length === 0);
}
