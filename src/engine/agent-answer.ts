import { create } from "@bufbuild/protobuf";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { type ModelCallFinished, ModelCallFinishedSchema } from "../../gen/parley/storage/v1/turn_step_pb.js";
import { Failure, type FailureReason } from "../failure.ts";
import type { Prompt } from "./context-window.ts";
import type { ModelAttempt, ModelMessage, ModelReply } from "./model.ts";
import type { AgentDefinition, TeamDefinition } from "./team.ts";
import { createTerminationFilter } from "./termination-filter.ts";
import { type Tokenizer, tokenizerFor } from "./tokenizer.ts";
import type { ToolSpec } from "./tool.ts";
import { callTool } from "./tool-call.ts";
import type { OpenModelCall, TurnEnd, TurnPorts } from "./turn.ts";

/** Tokens that stay free for the answer when a history is cut (DESIGN §4). */
export const ANSWER_RESERVE_TOKENS = 500;

/** Model calls that a turn may still make. */
export interface Rounds {
  left: number;
}

/** What an agent said, and why the turn ends with it, if it does. */
export interface AgentAnswer {
  readonly content: string;
  readonly end: TurnEnd | undefined;
}

/**
 * Lets an agent answer: a model call, the tool calls that the model asks for, the next model call, until it asks for none.
 * Throws TURN_STOPPED when the turn is ended from outside, and what the model throws.
 */
export async function answer(
  { agent, team, prompt, rounds }: { agent: AgentDefinition; team: TeamDefinition; prompt: Prompt; rounds: Rounds },
  ports: TurnPorts,
): Promise<AgentAnswer> {
  const tokenizer = tokenizerFor(agent.model);
  const tools = toolsOf(agent, ports);
  ports.emit({ case: "agentStarted", value: { agent: agent.name } });
  let { messages, tokens }: Prompt = prompt;
  for (let first = true; rounds.left > 0; first = false) {
    rounds.left--;
    const isFirst = rounds.left === team.maxRounds - 1;
    const leastOutputTokens = first ? 1 : ANSWER_RESERVE_TOKENS;
    const call = { agent, team, messages, tokens, tools, leastOutputTokens, isFirst };
    const reply = await ports.modelStep({ agent: agent.name, name: agent.model }, (open) => speak(call, ports, open));
    const end = endOf(reply);
    if (end !== undefined) return { content: reply.content, end };
    if (reply.toolCalls.length === 0) return { content: reply.content, end: undefined };
    const added: ModelMessage[] = [{ role: "assistant", content: reply.content, toolCalls: reply.toolCalls }];
    for (const request of reply.toolCalls) {
      const { content } = await callTool(request, { agent, timeoutMs: team.callTimeoutMs, ports });
      added.push({ role: "tool", toolCallId: request.id, content });
    }
    messages = [...messages, ...added];
    tokens += tokenizer.countMessages(added);
  }
  return { content: "", end: { finishReason: FinishReason.MAX_ROUNDS } };
}

/** Tokens that an agent's tools take in each of its prompts: no provider says how it renders them, so their JSON is counted. */
export function toolTokens(agent: AgentDefinition, tokenizer: Tokenizer, ports: Pick<TurnPorts, "tools">): number {
  const tools = toolsOf(agent, ports);
  return tools.length === 0 ? 0 : tokenizer.countText(JSON.stringify(tools));
}

function toolsOf(agent: AgentDefinition, { tools }: Pick<TurnPorts, "tools">): readonly ToolSpec[] {
  return agent.tools.flatMap((name) => {
    const tool = tools.get(name);
    return tool === undefined ? [] : [{ name: tool.name, description: tool.description, parameters: tool.parameters }];
  });
}

interface Speaking {
  readonly agent: AgentDefinition;
  readonly team: TeamDefinition;
  readonly messages: readonly ModelMessage[];
  /** What they cost. */
  readonly tokens: number;
  readonly tools: readonly ToolSpec[];
  /** An answer that may not even be this long is not asked for. */
  readonly leastOutputTokens: number;
  /** It is the turn's first. */
  readonly isFirst: boolean;
}

const BUDGET_REFUSALS: ReadonlySet<FailureReason> = new Set(["BUDGET_EXHAUSTED", "CALL_EXCEEDS_BUDGET"]);

/** One model call, with its text as it comes, its message and its usage in the log. */
async function speak(
  { agent, team, messages, tokens, tools, leastOutputTokens, isFirst }: Speaking,
  ports: TurnPorts,
  { cutText, isOver }: OpenModelCall,
): Promise<ModelCallFinished> {
  const over = isOver ? { content: cutText, messageId: ports.newMessageId() } : undefined;
  if (over !== undefined) {
    ports.emit({ case: "messageCompleted", value: { agent: agent.name, ...over } });
    return finished({ ...over, ended: "stopped" });
  }
  const maxOutputTokens = Math.min(ports.tokensLeft(), agent.contextWindowTokens) - tokens;
  if (maxOutputTokens < leastOutputTokens) return finished({ ended: "token_budget" });

  const message = startMessage(agent.name, team.terminationText, ports);
  // What failed is recorded at once: another attempt may take long. The rest stands behind the message that it paid for.
  let ended: ModelAttempt | undefined;
  const onAttempt = (attempt: ModelAttempt): void => {
    ports.attempts.onAttempt(attempt);
    if (attempt.outcome === "failed") recordUsage(agent.name, attempt, ports);
    else ended = attempt;
  };
  let reply: ModelReply | undefined;
  let failure: unknown;
  try {
    reply = await ports.model.call(
      {
        model: agent.model,
        messages,
        tools,
        temperature: agent.temperature,
        maxOutputTokens: Math.min(maxOutputTokens, agent.maxOutputTokens ?? maxOutputTokens),
        maxTotalTokens: ports.tokensLeft(),
        timeoutMs: team.callTimeoutMs,
      },
      { ...ports.attempts, signal: ports.signal, onText: message.say, onAttempt },
    );
  } catch (error) {
    failure = error;
  }
  // A call that failed leaves no message, one that was ended from outside leaves what was said.
  const stopped = reply === undefined && ports.signal.aborted;
  const calls = reply?.toolCalls ?? [];
  const said =
    reply === undefined && !stopped ? undefined : message.complete({ evenIfEmpty: !stopped && calls.length === 0 });
  if (ended !== undefined) recordUsage(agent.name, ended, ports);
  // Whoever takes the turn over before its end is written finds in here what was said.
  if (stopped) return finished({ ...said, ended: "stopped" });
  if (reply === undefined) {
    // A first call that no budget admits is a refusal of the turn; later ones end it with what was said.
    if (!isFirst && failure instanceof Failure && BUDGET_REFUSALS.has(failure.reason)) {
      return finished({ ended: "budget" });
    }
    throw failure;
  }
  return finished({
    ...said,
    ended: reply.ended,
    toolCalls: calls.map((call) => ({ $typeName: "parley.storage.v1.ToolCallRequest", ...call })),
  });
}

function finished(result: Partial<Omit<ModelCallFinished, "$typeName" | "$unknown">>): ModelCallFinished {
  return create(ModelCallFinishedSchema, { timeMs: BigInt(Date.now()), ...result });
}

/** Why the turn ends with a reply, if it does. */
function endOf({ ended, mentioned }: ModelCallFinished): TurnEnd | undefined {
  switch (ended) {
    case "stopped":
      return { finishReason: FinishReason.CANCELLED };
    case "token_budget":
    case "length":
      return { finishReason: FinishReason.TOKEN_BUDGET };
    case "budget":
      return { finishReason: FinishReason.BUDGET_EXHAUSTED };
    case "content_filter":
      return { finishReason: FinishReason.CONTENT_FILTER };
    default:
      return mentioned ? { finishReason: FinishReason.TERMINATED, termination: "TextMentionTermination" } : undefined;
  }
}

/** A message as it is being said, less the termination text. */
function startMessage(agent: string, terminationText: string, ports: TurnPorts) {
  const filter = createTerminationFilter(terminationText);
  let content = "";
  const show = (text: string): void => {
    if (text === "") return;
    content += text;
    ports.emit({ case: "textDelta", value: { agent, text } });
  };
  return {
    say: (text: string): void => show(filter.push(text)),
    complete({ evenIfEmpty }: { evenIfEmpty: boolean }): { mentioned: boolean; content: string; messageId: string } {
      const { rest, mentioned } = filter.end();
      show(rest);
      if (content === "" && !evenIfEmpty) return { mentioned, content, messageId: "" };
      const messageId = ports.newMessageId();
      ports.emit({ case: "messageCompleted", value: { agent, content, messageId } });
      return { mentioned, content, messageId };
    },
  };
}

function recordUsage(agent: string, { model, usage }: Pick<ModelAttempt, "model" | "usage">, ports: TurnPorts): void {
  const { promptTokens, completionTokens, source: usageSource } = usage;
  const tokenUsage = { promptTokens, completionTokens, totalTokens: promptTokens + completionTokens };
  ports.emit({ case: "usageRecorded", value: { agent, model, tokenUsage, usageSource } });
}
