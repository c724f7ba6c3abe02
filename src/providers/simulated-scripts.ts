import type { Tokenizer } from "../engine/tokenizer.ts";
import type { SimulatedMessage } from "./simulated-model.ts";

/** What the simulated model does with one call. */
export interface SimulatedScript {
  /** An answer that is no completion. */
  readonly refusal?: {
    readonly status: number;
    readonly headers?: Readonly<Record<string, string>>;
    readonly contentType?: string;
    readonly body: string;
  };
  readonly chunks: readonly SimulatedChunk[];
  /** The finish_reason, or how the stream breaks off instead. */
  readonly end: "stop" | "length" | "content_filter" | "tool_calls" | "cut" | "stall";
  readonly reportsUsage: boolean;
  /** Tokens that are reported. Default: those that were sent and said. */
  readonly promptTokens?: number;
  readonly completionTokens?: number;
}

/** Says what the simulated model does with a call. */
export type ScriptOf = (model: string, call: ScriptedRequest) => SimulatedScript;

/** A call as scripts see it. */
export interface ScriptedRequest {
  readonly messages: readonly SimulatedMessage[];
  /** Names of the tools that are offered. */
  readonly tools: readonly string[];
  readonly chunkDelayMs: number;
  /** Bound on the answer in tokens; 0: none. */
  readonly maxTokens: number;
  readonly tokenizer: Tokenizer;
}

export interface SimulatedChunk {
  /** Pause before it, in milliseconds. */
  readonly delayMs: number;
  readonly text?: string;
  readonly toolCall?: { readonly id: string; readonly name: string; readonly argumentsJson: string };
  /** Bytes that are no event. */
  readonly raw?: string;
}

/**
 * The script of a call, by the model's name: `sim-…` names ask for faults, `sim-20x10` for 20 chunks 10 ms apart,
 * `sim-tools` for a call of each tool that is offered before the answer, `sim-tools-20x10` for both; every other name is a
 * model that repeats what it was told. The newest message that is an object in JSON is the arguments of the calls. The same
 * call has the same script.
 */
export function scriptFor(
  model: string,
  { messages, tools, chunkDelayMs, maxTokens, tokenizer }: ScriptedRequest,
): SimulatedScript {
  const [, callsTools, count, delay] = /^sim(-tools)?(?:-(\d+)x(\d+))?$/.exec(model) ?? [];
  const paced = Array.from({ length: Number(count ?? 0) }, (_, index) => ({
    delayMs: Number(delay),
    text: `piece ${index} `,
  }));
  if (callsTools !== undefined && messages.at(-1)?.role === "user" && tools.length > 0) {
    const isArguments = ({ role, content }: SimulatedMessage): boolean => role === "user" && /^\{.*\}$/s.test(content);
    const argumentsJson = messages.findLast(isArguments)?.content ?? "{}";
    const calls = tools.map((name, index) => ({
      delayMs: 0,
      toolCall: { id: `call_${messages.length}_${index}`, name, argumentsJson },
    }));
    return { ...spoken([...paced, ...calls]), end: "tool_calls" };
  }
  if (paced.length > 0) return spoken(paced);
  const said = (delayMs = chunkDelayMs) => words(replyTo(messages)).map((text) => ({ delayMs, text }));
  switch (model) {
    case "sim-400":
      return refused(400, "invalid_request_error");
    case "sim-401":
      return refused(401, "invalid_api_key");
    case "sim-403":
      return refused(403, "permission_denied");
    case "sim-404":
      return refused(404, "model_not_found");
    case "sim-429":
      return refused(429, "rate_limit_exceeded", { "retry-after": "7" });
    case "sim-500":
      return refused(500, "server_error");
    case "sim-html":
      return {
        ...refused(200, ""),
        refusal: { status: 200, contentType: "text/html", body: "<html><body>Welcome to the proxy</body></html>" },
      };
    case "sim-empty":
      return { ...spoken([]), refusal: { status: 200, contentType: "text/event-stream", body: "data: [DONE]\n\n" } };
    case "sim-stall":
      return { ...spoken([]), end: "stall" };
    case "sim-stall-midway":
      return { ...spoken(half(said())), end: "stall" };
    case "sim-cut":
      return { ...spoken(half(said())), end: "cut" };
    case "sim-malformed":
      return spoken([...half(said()), { delayMs: 0, raw: "data: {this is no JSON\n\n" }]);
    case "sim-slow":
      return spoken(said(100));
    case "sim-no-usage":
      return { ...spoken(said()), reportsUsage: false };
    case "sim-length":
      return { ...spoken(half(said())), end: "length" };
    case "sim-content-filter":
      return { ...spoken(half(said())), end: "content_filter" };
    case "sim-terminate":
      return spoken([...said(), ...["\n\nTERMI", "NATE"].map((text) => ({ delayMs: chunkDelayMs, text }))]);
    case "sim-tool-loop":
      return {
        ...spoken([
          {
            delayMs: 0,
            toolCall: { id: `call_${messages.length}`, name: "look_up", argumentsJson: '{"query":"again"}' },
          },
        ]),
        end: "tool_calls",
      };
    default:
      return bounded(said(), { maxTokens, tokenizer });
  }
}

/** The reply has the last message and all earlier texts of the user that it was sent. */
function replyTo(messages: readonly SimulatedMessage[]): string {
  const [last, ...earlier] = messages
    .filter(({ role }) => role === "user")
    .map(({ content }) => `“${content}”`)
    .reverse();
  if (last === undefined) return "You have not said anything yet.";
  const told = messages.filter(({ role }) => role === "tool").map(({ content }) => ` A tool said: “${content}”.`);
  const reply = `You said: ${last}.${told.join("")}`;
  if (earlier.length === 0) return `${reply} I am a simulated model: I repeat what I am told.`;
  return `${reply} Before that you said: ${earlier.reverse().join(", ")}.`;
}

/** A text in pieces as models send it. */
export function words(text: string): string[] {
  return text.match(/\s*\S+|\s+$/g) ?? [];
}

/** As much of a reply as its bound on tokens lets through. */
function bounded(
  chunks: SimulatedChunk[],
  { maxTokens, tokenizer }: { maxTokens: number; tokenizer: Tokenizer },
): SimulatedScript {
  const whole = chunks.map((chunk) => chunk.text ?? "").join("");
  if (maxTokens <= 0 || tokenizer.countText(whole) <= maxTokens) return spoken(chunks);
  let text = "";
  const kept = chunks.filter((chunk) => {
    text += chunk.text ?? "";
    return tokenizer.countText(text) <= maxTokens;
  });
  return { ...spoken(kept), end: "length" };
}

function spoken(chunks: readonly SimulatedChunk[]): SimulatedScript {
  return { chunks, end: "stop", reportsUsage: true };
}

function half<T>(items: readonly T[]): T[] {
  return items.slice(0, Math.ceil(items.length / 2));
}

function refused(status: number, code: string, headers: Record<string, string> = {}): SimulatedScript {
  return {
    ...spoken([]),
    refusal: { status, headers, body: JSON.stringify({ error: { message: "simulated refusal", type: code, code } }) },
  };
}
