import { create } from "@bufbuild/protobuf";
import { ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { PersonAnswer } from "../../gen/parley/storage/v1/pending_input_pb.js";
import {
  type ToolCallFinished,
  ToolCallFinishedSchema,
  type ToolCallRequest,
} from "../../gen/parley/storage/v1/turn_step_pb.js";
import type { AgentDefinition } from "./team.ts";
import { type Tool, ToolFailure } from "./tool.ts";
import type { TurnEnd, TurnPorts } from "./turn.ts";

/** What a tool says is cut to this many characters: it becomes part of a prompt. */
const MAX_RESULT_CHARACTERS = 65_536;

/** What the model is told of a call whose end nobody knows. */
export const UNKNOWN_OUTCOME =
  "The call was started, and its end is not known: it may have taken effect. It was not repeated.";

/** A tool call that a model asks for, with its id in events. */
export interface RequestedCall {
  readonly request: ToolCallRequest;
  readonly toolCallId: string;
}

/** Whether a person has to approve a call. What cannot be made at all needs no approval. */
export function needsApproval({ request: { name, argumentsJson } }: RequestedCall, agent: AgentDefinition): boolean {
  return agent.approvals?.includes(name) === true && agent.tools.includes(name) && isJsonObject(argumentsJson);
}

/** Ends a turn with the question whether calls may be made; the first of them needs an approval and has none. */
export function askFor(
  [first, ...others]: readonly RequestedCall[],
  { agent, ports }: { agent: AgentDefinition; ports: Pick<TurnPorts, "answerTo" | "emit"> },
): TurnEnd {
  // All at once, so that a person decides once; the calls are made in the model's order all the same.
  const open = others.filter(
    (call) => needsApproval(call, agent) && ports.answerTo({ id: call.toolCallId, agent: agent.name }) === undefined,
  );
  const asked = first === undefined ? open : [first, ...open];
  for (const { toolCallId, request } of asked) {
    const { name: tool, argumentsJson } = request;
    ports.emit({ case: "approvalRequired", value: { agent: agent.name, toolCallId, tool, argumentsJson } });
  }
  return { finishReason: FinishReason.INPUT_REQUIRED, questions: asked.map(({ toolCallId }) => toolCallId) };
}

/**
 * Makes a tool call that a model asks for, unless it may not: then the model is told so. Whatever goes wrong is told to the
 * model; only the end of the turn is thrown.
 */
export async function callTool(
  { request, toolCallId }: RequestedCall,
  {
    agent,
    timeoutMs,
    approval,
    ports,
  }: {
    agent: AgentDefinition;
    timeoutMs: number;
    /** What a person has answered, where one had to be asked. */
    approval: PersonAnswer | "none";
    ports: TurnPorts;
  },
): Promise<ToolCallFinished> {
  const tool = agent.tools.includes(request.name) ? ports.tools.get(request.name) : undefined;
  const named = { agent: agent.name, toolCallId, tool: request.name };
  ports.emit({ case: "toolCallStarted", value: { ...named, argumentsJson: request.argumentsJson } });
  const tell = (result: ToolCallFinished): ToolCallFinished => {
    const { outcome, content } = result;
    ports.emit({ case: "toolCallCompleted", value: { ...named, outcome, content } });
    return result;
  };
  if (tool === undefined) return tell(noSuchTool(request.name));
  if (approval !== "none" && !approval.approved) return tell(notApproved(approval));
  const step = { agent: agent.name, name: tool.name, idempotent: tool.idempotent };
  return await ports.toolStep(step, {
    run: async ({ id }) => tell(await run(tool, { id, argumentsJson: request.argumentsJson, timeoutMs, ports })),
    unknown: () => tell(result(ToolOutcome.UNKNOWN, UNKNOWN_OUTCOME)),
  });
}

async function run(
  tool: Tool,
  {
    id,
    argumentsJson,
    timeoutMs,
    ports,
  }: { id: string; argumentsJson: string; timeoutMs: number; ports: Pick<TurnPorts, "signal"> },
): Promise<ToolCallFinished> {
  if (!isJsonObject(argumentsJson)) {
    return result(ToolOutcome.REFUSED, "The arguments are not a JSON object. The call was not made.");
  }
  const late = new AbortController();
  // By its name a tool tells a call that is late from a turn that ends.
  const timer = setTimeout(() => late.abort(new DOMException("the call is late", "TimeoutError")), timeoutMs);
  const signal = AbortSignal.any([ports.signal, late.signal]);
  try {
    return result(ToolOutcome.OK, cut(await endedBy(tool.call(argumentsJson, { id, signal }), signal)));
  } catch (error) {
    if (ports.signal.aborted) return result(ToolOutcome.UNKNOWN, UNKNOWN_OUTCOME);
    if (error instanceof ToolFailure) return result(error.outcome, cut(error.told));
    const why = late.signal.aborted ? "did not answer in time; it may have taken effect" : "failed";
    return result(ToolOutcome.ERROR, `The tool ${why}.`);
  } finally {
    clearTimeout(timer);
  }
}

function cut(content: string): string {
  return content.length <= MAX_RESULT_CHARACTERS ? content : `${content.slice(0, MAX_RESULT_CHARACTERS)} … (cut)`;
}

/** The promise's outcome, or a rejection as soon as the signal is aborted: a tool need not obey it. */
function endedBy<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const aborted = (): void => reject(signal.reason);
    if (signal.aborted) aborted();
    signal.addEventListener("abort", aborted, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", aborted));
  });
}

function notApproved({ text }: PersonAnswer): ToolCallFinished {
  const said = text === "" ? "" : ` The user said: ${text}`;
  return result(ToolOutcome.REFUSED, `The user did not approve the call. It was not made.${said}`);
}

function noSuchTool(name: string): ToolCallFinished {
  return result(ToolOutcome.ERROR, `There is no tool named ${JSON.stringify(name)}. Answer without it.`);
}

function result(outcome: ToolOutcome, content: string): ToolCallFinished {
  return create(ToolCallFinishedSchema, { outcome, content });
}

function isJsonObject(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
}
