import { type SimulatedMessage, startSimulatedModel } from "./simulated-model.ts";
import { type ScriptedRequest, type SimulatedScript, words } from "./simulated-scripts.ts";

/** One call that a {@link ScriptedModel} expects, and what it answers. */
export interface ScriptedCall {
  /** What the call has to be like. What is left out may be anything. */
  readonly expect?: {
    /** Name of the model. */
    readonly model?: string;
    /** Text that the agent's system message has in it. */
    readonly system?: string;
    /** Text that the newest message has in it: the user's, another agent's, or a tool's result. */
    readonly last?: string;
    /** Names of all tools that are offered, in any order, as parley.yaml has them: `orders.look_up`. */
    readonly tools?: readonly string[];
  };
  /** What the model says. Default: nothing. */
  readonly text?: string;
  /** Tools that the model asks for, as parley.yaml names them; hand-offs are `transfer_to_<agent>`, questions `ask_user`. */
  readonly toolCalls?: readonly {
    readonly name: string;
    /** An object, or text that is sent as it stands: models write invalid JSON, too. Default: no arguments. */
    readonly arguments?: Readonly<Record<string, unknown>> | string;
  }[];
  /** The provider refuses the call with this HTTP status, instead of an answer. */
  readonly status?: number;
  /** Tokens that the provider reports. Default: what was sent and said, by the model's own tokenizer. */
  readonly usage?: { readonly promptTokens: number; readonly completionTokens: number };
}

/** A call that was made, as it came. */
export interface SeenCall {
  readonly model: string;
  readonly messages: readonly { readonly role: string; readonly content: string }[];
  /** Names of the tools that were offered, as models are told them: `orders__look_up`. */
  readonly tools: readonly string[];
}

/** A provider for tests: it speaks the wire of OpenAI's chat completions, answers as a script says, and nothing else. */
export interface ScriptedModel {
  /** Base URL, as OPENAI_BASE_URL and `base_url` take it. */
  readonly baseUrl: string;
  /** All calls so far, oldest first, those that were not expected included. */
  readonly calls: readonly SeenCall[];
  /** What did not go as the script has it so far, a sentence each. */
  readonly problems: readonly string[];
  /** Throws an Error with all problems, and with the calls of the script that were not made. */
  verify(): void;
  close(): Promise<void>;
}

const FIELDS = new Set(["expect", "text", "toolCalls", "status", "usage"]);
const EXPECTED_FIELDS = new Set(["model", "system", "last", "tools"]);

/**
 * Starts a model that is called as the script says, in its order. A call that is not expected is refused (HTTP 400), so that
 * its turn fails with MODEL_REFUSED, and is a problem; the script stands where it was. Rejects with a TypeError when the
 * script has fields that do not exist, and when the port cannot be had.
 */
export async function startScriptedModel(
  script: readonly ScriptedCall[],
  {
    repeat = false,
    ...options
  }: {
    /** Address to listen on. Default: 127.0.0.1. */
    host?: string;
    /** Default: a free one. */
    port?: number;
    /** Pause between two words, in milliseconds. Default: 0. */
    chunkDelayMs?: number;
    /**
     * For trying things by hand: the script begins anew after its last call, and where the next call does not fit the first
     * one after it that does is taken. Default: false.
     */
    repeat?: boolean;
  } = {},
): Promise<ScriptedModel> {
  refuseUnknownFields(script);
  const calls: SeenCall[] = [];
  const problems: string[] = [];
  let next = 0;

  const scriptOf = (model: string, request: ScriptedRequest): SimulatedScript => {
    const call = { model, messages: request.messages, tools: request.tools };
    calls.push(call);
    const inOrder = script.map((_, ahead) => (next + ahead) % script.length);
    const at = repeat ? inOrder.find((index) => differenceOf(call, script[index]) === undefined) : next;
    const scripted = at === undefined ? undefined : script[at];
    const difference = differenceOf(call, scripted ?? script[next]);
    if (at === undefined || scripted === undefined || difference !== undefined) {
      const problem = `Call ${calls.length} was not expected: ${difference ?? "it fits nothing"}.`;
      problems.push(problem);
      return refusal(400, { message: problem, code: "unexpected_call" });
    }
    next = repeat ? (at + 1) % script.length : at + 1;
    return answerOf(scripted, { ...request, number: calls.length });
  };

  const server = await startSimulatedModel({ chunkDelayMs: 0, ...options, scriptOf });
  return {
    baseUrl: server.baseUrl,
    calls,
    problems,
    verify() {
      const missing = repeat ? 0 : script.length - next;
      const notMade = missing === 0 ? [] : [`${missing} of the script's ${script.length} calls were not made.`];
      const all = [...problems, ...notMade];
      if (all.length > 0) throw new Error(all.join("\n"));
    },
    close: () => server.close(),
  };
}

/** How a call differs from what is expected; undefined: it does not. */
function differenceOf({ model, messages, tools }: SeenCall, scripted: ScriptedCall | undefined): string | undefined {
  if (scripted === undefined) return "the script has no further calls";
  const { expect = {} } = scripted;
  const system = textOf(messages.find(({ role }) => role === "system" || role === "developer"));
  const last = textOf(messages.at(-1));
  if (expect.model !== undefined && expect.model !== model)
    return `model ${quoted(model)}, not ${quoted(expect.model)}`;
  if (expect.system !== undefined && !system.includes(expect.system))
    return `the system message ${quoted(system)} lacks ${quoted(expect.system)}`;
  if (expect.last !== undefined && !last.includes(expect.last))
    return `the newest message ${quoted(last)} lacks ${quoted(expect.last)}`;
  const [offered, wanted] = [tools, expect.tools?.map(onWire)].map((names) => names?.toSorted().join(", "));
  if (wanted !== undefined && offered !== wanted) return `tools offered: ${offered || "none"}, not ${wanted || "none"}`;
  return undefined;
}

function answerOf(
  { text = "", toolCalls = [], status, usage }: ScriptedCall,
  { chunkDelayMs, number }: ScriptedRequest & { readonly number: number },
): SimulatedScript {
  if (status !== undefined) return refusal(status, { message: "scripted refusal", code: "scripted_refusal" });
  const said = words(text).map((word) => ({ delayMs: chunkDelayMs, text: word }));
  const asked = toolCalls.map(({ name, arguments: given = {} }, index) => ({
    delayMs: 0,
    toolCall: {
      id: `call_${number}_${index}`,
      name: onWire(name),
      argumentsJson: typeof given === "string" ? given : JSON.stringify(given),
    },
  }));
  return {
    chunks: [...said, ...asked],
    end: asked.length > 0 ? "tool_calls" : "stop",
    reportsUsage: true,
    ...usage,
  };
}

function refusal(status: number, error: { message: string; code: string }): SimulatedScript {
  const body = JSON.stringify({ error: { ...error, type: error.code } });
  return { chunks: [], end: "stop", reportsUsage: false, refusal: { status, body } };
}

function refuseUnknownFields(script: readonly ScriptedCall[]): void {
  for (const [index, call] of script.entries()) {
    const unknown = [
      ...Object.keys(call).filter((field) => !FIELDS.has(field)),
      ...Object.keys(call.expect ?? {}).flatMap((field) => (EXPECTED_FIELDS.has(field) ? [] : [`expect.${field}`])),
    ];
    if (unknown.length > 0)
      throw new TypeError(`call ${index + 1} of the script: no such field: ${unknown.join(", ")}`);
  }
}

/** Models take no dots in the names of tools. */
function onWire(tool: string): string {
  return tool.replace(".", "__");
}

function textOf(message: SimulatedMessage | undefined): string {
  return typeof message?.content === "string" ? message.content : "";
}

/** Longest text that is quoted in a problem, in characters. */
const QUOTED_CHARACTERS = 200;

function quoted(text: string): string {
  return JSON.stringify(text.length <= QUOTED_CHARACTERS ? text : `${text.slice(0, QUOTED_CHARACTERS)}…`);
}
