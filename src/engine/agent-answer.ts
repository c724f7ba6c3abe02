import { create } from "@bufbuild/protobuf";
import { AgentStopReason, GuardrailStage } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { type ModelCallFinished, ModelCallFinishedSchema } from "../../gen/parley/storage/v1/turn_step_pb.js";
import { Failure, type FailureReason } from "../failure.ts";
import type { Prompt } from "./context-window.ts";
import { createOutputGuard } from "./guardrails.ts";
import { handoffOf, handoffTools } from "./handoff.ts";
import type { ModelAttempt, ModelMessage, ModelReply, ModelRequest } from "./model.ts";
import { askPerson, askTools, isQuestion, NO_QUESTION, questionOf } from "./person.ts";
import type { AgentDefinition, TeamDefinition } from "./team.ts";
import { createTerminationFilter } from "./termination-filter.ts";
import { type Tokenizer, tokenizerFor } from "./tokenizer.ts";
import type { ToolSpec } from "./tool.ts";
import { askFor, callTool, needsApproval, type RequestedCall } from "./tool-call.ts";
import type { OpenModelCall, TurnEnd, TurnPorts } from "./turn.ts";

/** Tokens that stay free for the answer when a history is cut (DESIGN §4). */
export const ANSWER_RESERVE_TOKENS = 500;

/** What a team has used of its bounds. */
export interface Rounds {
  /** Model calls that the turn may still make. */
  left: number;
  /** Tokens of each agent's calls so far. */
  readonly used: Map<string, number>;
}

export function startRounds({ maxRounds }: Pick<TeamDefinition, "maxRounds">): Rounds {
  return { left: maxRounds, used: new Map() };
}

/** What is left of an agent's own tokens. */
export function agentTokensLeft(
  { name, maxTokens = Number.POSITIVE_INFINITY }: AgentDefinition,
  { used }: Rounds,
): number {
  return maxTokens - (used.get(name) ?? 0);
}

/** Says that an agent does not speak any more, for its own bound on tokens. */
export function stopAgent({ name: agent }: AgentDefinition, { emit }: Pick<TurnPorts, "emit">): void {
  emit({ case: "agentStopped", value: { agent, reason: AgentStopReason.TOKEN_CAP } });
}

/** What an agent said, and why the turn ends with it, if it does. */
export interface AgentAnswer {
  readonly content: string;
  readonly end: TurnEnd | undefined;
  /** Whether it does not speak any more, for its own bound on tokens. */
  readonly isStopped: boolean;
  /** The agent that it hands the conversation to, if it does. */
  readonly handoff?: string;
  /** Tools that it has called. */
  readonly calls: readonly string[];
  /** Tokens of the turn by then, and when the answer was complete, in milliseconds since the epoch. */
  readonly usedTokens: number;
  readonly timeMs: number;
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
  const calls: string[] = [];
  let [usedTokens, timeMs] = [0, 0];
  for (let first = true; rounds.left > 0; first = false) {
    rounds.left--;
    const isFirst = rounds.left === team.maxRounds - 1;
    const leastOutputTokens = first ? 1 : ANSWER_RESERVE_TOKENS;
    const ownTokensLeft = agentTokensLeft(agent, rounds);
    const call = { agent, team, messages, tokens, tools, leastOutputTokens, ownTokensLeft, isFirst };
    const reply = await ports.modelStep({ agent: agent.name, name: agent.model }, (open) => speak(call, ports, open));
    rounds.used.set(agent.name, (rounds.used.get(agent.name) ?? 0) + Number(reply.callTokens));
    const end = endOf(reply);
    const isStopped = reply.ended === AGENT_CAP;
    if (isStopped) stopAgent(agent, ports);
    usedTokens = Number(reply.usedTokens);
    timeMs = Number(reply.timeMs);
    const said = { content: reply.content, end, isStopped, calls, usedTokens, timeMs };
    if (end !== undefined || isStopped || reply.toolCalls.length === 0) return said;
    const added: ModelMessage[] = [{ role: "assistant", content: reply.content, toolCalls: reply.toolCalls }];
    let handoff: string | undefined;
    const requested: RequestedCall[] = [];
    for (const request of reply.toolCalls) {
      const to = handoffOf(request.name, agent);
      // Of several the first counts: one agent speaks at a time.
      if (to !== undefined) handoff ??= to;
      else requested.push({ request, toolCallId: ports.newToolCallId(request.id) });
    }
    for (const [index, call] of requested.entries()) {
      const { request, toolCallId } = call;
      if (isQuestion(request.name, agent)) {
        const answered = answerOf(call, { agent, team, ports });
        if ("finishReason" in answered) return { ...said, end: answered };
        calls.push(request.name);
        added.push({ role: "tool", toolCallId: request.id, content: answered.text });
        continue;
      }
      const approval = needsApproval(call, agent) ? ports.answerTo({ id: toolCallId, agent: agent.name }) : "none";
      if (approval === undefined) return { ...said, end: askFor(requested.slice(index), { agent, ports }) };
      calls.push(request.name);
      const { content } = await callTool(call, { agent, timeoutMs: team.callTimeoutMs, approval, ports });
      added.push({ role: "tool", toolCallId: request.id, content });
    }
    if (handoff !== undefined) {
      ports.emit({ case: "handoff", value: { fromAgent: agent.name, toAgent: handoff } });
      return { ...said, handoff };
    }
    messages = [...messages, ...added];
    tokens += tokenizer.countMessages(added);
  }
  return { content: "", end: { finishReason: FinishReason.MAX_ROUNDS }, isStopped: false, calls, usedTokens, timeMs };
}

/** What the person has answered to an agent's question, or the turn's end with it. */
function answerOf(
  { request, toolCallId }: RequestedCall,
  { agent, team, ports }: { agent: AgentDefinition; team: TeamDefinition; ports: TurnPorts },
): { readonly text: string } | TurnEnd {
  const question = questionOf(request.argumentsJson);
  if (question === undefined) return { text: NO_QUESTION };
  const answer = ports.answerTo({ id: toolCallId, agent: agent.name });
  if (answer !== undefined) return answer;
  // It is a message as well: readers that know nothing of questions show it, and so does the history.
  const message = startMessage(agent.name, team, ports);
  message.say(question);
  message.complete({ evenIfEmpty: false });
  if (message.tripped) return { finishReason: FinishReason.GUARDRAIL };
  return askPerson({ id: toolCallId, agent: agent.name, prompt: question }, ports);
}

/** Tokens that an agent's tools take in each of its prompts: no provider says how it renders them, so their JSON is counted. */
export function toolTokens(agent: AgentDefinition, tokenizer: Tokenizer, ports: Pick<TurnPorts, "tools">): number {
  const tools = toolsOf(agent, ports);
  return tools.length === 0 ? 0 : tokenizer.countText(JSON.stringify(tools));
}

function toolsOf(agent: AgentDefinition, { tools }: Pick<TurnPorts, "tools">): readonly ToolSpec[] {
  const allowed = agent.tools.flatMap((name) => {
    const tool = tools.get(name);
    return tool === undefined ? [] : [{ name: tool.name, description: tool.description, parameters: tool.parameters }];
  });
  return [...allowed, ...handoffTools(agent), ...askTools(agent)];
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
  /** What is left of the agent's own tokens. */
  readonly ownTokensLeft: number;
  /** It is the turn's first. */
  readonly isFirst: boolean;
}

/** How a reply has ended that the agent's own bound on tokens has cut, or left no room for. */
const AGENT_CAP = "agent_cap";

const BUDGET_REFUSALS: ReadonlySet<FailureReason> = new Set(["BUDGET_EXHAUSTED", "CALL_EXCEEDS_BUDGET"]);

/** One model call, with its text as it comes, its message and its usage in the log. */
async function speak(
  { agent, team, messages, tokens, tools, leastOutputTokens, ownTokensLeft, isFirst }: Speaking,
  ports: TurnPorts,
  { cutText, isOver }: OpenModelCall,
): Promise<ModelCallFinished> {
  const over = isOver ? { content: cutText, messageId: ports.newMessageId() } : undefined;
  if (over !== undefined) {
    ports.emit({ case: "messageCompleted", value: { agent: agent.name, ...over } });
    return finished({ ...over, ended: "stopped" });
  }
  const room = Math.min(ports.tokensLeft(), agent.contextWindowTokens);
  if (room - tokens < leastOutputTokens) return finished({ ended: "token_budget" });
  const outputRoom = Math.min(room, ownTokensLeft) - tokens;
  if (outputRoom < leastOutputTokens) return finished({ ended: AGENT_CAP });
  const maxOutputTokens = Math.min(outputRoom, agent.maxOutputTokens ?? outputRoom);

  const reply = await callModel(
    {
      agent: agent.name,
      model: agent.model,
      messages,
      tools,
      temperature: agent.temperature,
      maxOutputTokens,
      maxTotalTokens: Math.min(ports.tokensLeft(), ownTokensLeft),
      timeoutMs: team.callTimeoutMs,
      isFirst,
    },
    ports,
    startMessage(agent.name, team, ports),
  );
  // An answer that was to be no longer ends the turn: it is not the agent that has used up what it has.
  if (reply.ended === "length" && ownTokensLeft < room && maxOutputTokens === outputRoom) reply.ended = AGENT_CAP;
  return reply;
}

/**
 * Makes one model call, with its usage in the log, and its text too where it is a `message`; else that is in the result
 * alone. A first call that no budget admits throws its refusal, a later one ends with `budget`. Throws what the model throws.
 */
export async function callModel(
  { agent, isFirst, ...request }: ModelRequest & { /** Whom it is made for. */ agent: string; isFirst: boolean },
  ports: TurnPorts,
  message?: ReturnType<typeof startMessage>,
): Promise<ModelCallFinished> {
  // What failed is recorded at once: another attempt may take long. The rest stands behind the message that it paid for.
  let ended: ModelAttempt | undefined;
  const onAttempt = (attempt: ModelAttempt): void => {
    ports.attempts.onAttempt(attempt);
    if (attempt.outcome === "failed") recordUsage(agent, attempt, ports);
    else ended = attempt;
  };
  const cut = new AbortController();
  const onText = (text: string): void => {
    message?.say(text);
    // Nobody is to read on: what is not said is not paid either.
    if (message?.tripped) cut.abort(new Error("a guardrail was tripped"));
  };
  const signal = message?.isChecked ? AbortSignal.any([ports.signal, cut.signal]) : ports.signal;
  let reply: ModelReply | undefined;
  let failure: unknown;
  try {
    reply = await ports.model.call(request, { ...ports.attempts, signal, onText, onAttempt });
  } catch (error) {
    failure = error;
  }
  // A call that failed leaves no message, one that was ended from outside leaves what was said.
  const stopped = reply === undefined && ports.signal.aborted;
  const calls = reply?.toolCalls ?? [];
  const said =
    reply === undefined && !stopped && !cut.signal.aborted
      ? undefined
      : message?.complete({ evenIfEmpty: reply !== undefined && calls.length === 0 });
  if (ended !== undefined) recordUsage(agent, ended, ports);
  // Whoever takes the turn over before its end is written finds in here what was said.
  if (stopped) return finished({ ...said, ended: "stopped" });
  if (message?.tripped) return finished({ ...said, ended: "guardrail" });
  if (reply === undefined) {
    // A first call that no budget admits is a refusal of the turn; later ones end it with what was said.
    if (!isFirst && failure instanceof Failure && BUDGET_REFUSALS.has(failure.reason)) {
      return finished({ ended: "budget" });
    }
    throw failure;
  }
  return finished({
    ...(said ?? { content: reply.text }),
    ended: reply.ended,
    toolCalls: calls.map((call) => ({ $typeName: "parley.storage.v1.ToolCallRequest", ...call })),
  });
}

function finished(result: Partial<Omit<ModelCallFinished, "$typeName" | "$unknown">>): ModelCallFinished {
  return create(ModelCallFinishedSchema, { timeMs: BigInt(Date.now()), ...result });
}

/** Why the turn ends with a reply, if it does. */
export function endOf({ ended, mentioned }: ModelCallFinished): TurnEnd | undefined {
  switch (ended) {
    case "stopped":
      return { finishReason: FinishReason.CANCELLED };
    case "token_budget":
    case "length":
      return { finishReason: FinishReason.TOKEN_BUDGET };
    case "budget":
      return { finishReason: FinishReason.BUDGET_EXHAUSTED };
    case "guardrail":
      return { finishReason: FinishReason.GUARDRAIL };
    case "content_filter":
      return { finishReason: FinishReason.CONTENT_FILTER };
    default:
      return mentioned ? { finishReason: FinishReason.TERMINATED, termination: "TextMentionTermination" } : undefined;
  }
}

/** A message as it is being said, less the termination text and what a check keeps back. */
function startMessage(agent: string, { terminationText, guardrails }: TeamDefinition, ports: TurnPorts) {
  const filter = createTerminationFilter(terminationText);
  const guard = createOutputGuard(guardrails?.output ?? []);
  let content = "";
  const show = (text: string): void => {
    if (text === "") return;
    content += text;
    ports.emit({ case: "textDelta", value: { agent, text } });
  };
  return {
    say: (text: string): void => show(guard.push(filter.push(text))),
    complete({ evenIfEmpty }: { evenIfEmpty: boolean }): { mentioned: boolean; content: string; messageId: string } {
      const { rest, mentioned } = filter.end();
      show(guard.push(rest));
      show(guard.end());
      let messageId = "";
      if (content !== "" || (evenIfEmpty && guard.tripped === undefined)) {
        messageId = ports.newMessageId();
        ports.emit({ case: "messageCompleted", value: { agent, content, messageId } });
      }
      if (guard.tripped !== undefined) {
        ports.emit({ case: "guardrailTripped", value: { guardrail: guard.tripped, stage: GuardrailStage.OUTPUT } });
      }
      return { mentioned, content, messageId };
    },
    isChecked: (guardrails?.output ?? []).length > 0,
    /** Whether a check has failed: nothing more may be said. */
    get tripped(): boolean {
      return guard.tripped !== undefined;
    },
  };
}

function recordUsage(agent: string, { model, usage }: Pick<ModelAttempt, "model" | "usage">, ports: TurnPorts): void {
  const { promptTokens, completionTokens, source: usageSource } = usage;
  const tokenUsage = { promptTokens, completionTokens, totalTokens: promptTokens + completionTokens };
  ports.emit({ case: "usageRecorded", value: { agent, model, tokenUsage, usageSource } });
}
