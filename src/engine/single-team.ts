import { ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { Failure } from "../failure.ts";
import { cutToWindow, type Prompt } from "./context-window.ts";
import type { ModelAttempt, ModelMessage, ModelReply } from "./model.ts";
import { createTerminationFilter } from "./termination-filter.ts";
import { type Tokenizer, tokenizerFor } from "./tokenizer.ts";
import type { TurnEnd, TurnInput, TurnPorts } from "./turn.ts";

/**
 * Runs a turn of a team of one agent: one model call, and one more for each round of tool calls that the model asks for.
 * Throws TURN_TOKEN_BUDGET when the message does not fit alone, and what the model throws.
 */
export async function runSingleTeam(turn: TurnInput, ports: TurnPorts): Promise<TurnEnd> {
  const { team } = turn;
  const [agent] = team.agents;
  const tokenizer = tokenizerFor(agent.model);
  let tokensLeft = turn.maxTokens;
  ports.emit({ case: "agentStarted", value: { agent: agent.name } });

  let prompt = firstPrompt(turn, tokenizer);
  if (prompt === undefined) throw new Failure("TURN_TOKEN_BUDGET");
  for (let round = 0; round < team.maxRounds; round++) {
    const messages: readonly ModelMessage[] = prompt.messages;
    const tokens: number = prompt.tokens;
    const maxOutputTokens = Math.min(tokensLeft, team.contextWindowTokens) - tokens;
    if (maxOutputTokens < (round === 0 ? 1 : ANSWER_RESERVE_TOKENS)) return { finishReason: FinishReason.TOKEN_BUDGET };

    const message = startMessage(agent.name, team.terminationText, ports);
    // What failed is recorded at once: another attempt may take long. The rest stands behind the message that it paid for.
    let ended: ModelAttempt | undefined;
    const onAttempt = (attempt: ModelAttempt): void => {
      tokensLeft -= attempt.usage.promptTokens + attempt.usage.completionTokens;
      if (attempt.outcome === "failed") recordUsage(agent.name, attempt, ports);
      else ended = attempt;
    };
    let reply: ModelReply;
    try {
      reply = await ports.model.call(
        {
          model: agent.model,
          messages,
          temperature: agent.temperature,
          maxOutputTokens,
          maxTotalTokens: tokensLeft,
          timeoutMs: team.callTimeoutMs,
        },
        { signal: ports.signal, onText: message.say, onAttempt },
      );
    } catch (error) {
      const stopped = ports.signal.aborted;
      if (stopped) message.complete();
      if (ended !== undefined) recordUsage(agent.name, ended, ports);
      if (stopped) return { finishReason: FinishReason.CANCELLED };
      throw error;
    }
    const { mentioned, content } = message.complete({ evenIfEmpty: reply.toolCalls.length === 0 });
    if (ended !== undefined) recordUsage(agent.name, ended, ports);

    if (reply.ended === "length") return { finishReason: FinishReason.TOKEN_BUDGET };
    if (reply.ended === "content_filter") return { finishReason: FinishReason.CONTENT_FILTER };
    if (mentioned) return { finishReason: FinishReason.TERMINATED, termination: "TextMentionTermination" };
    if (reply.toolCalls.length === 0) return { finishReason: FinishReason.STOP };
    const added: ModelMessage[] = [
      { role: "assistant", content, toolCalls: reply.toolCalls },
      ...refuseToolCalls(reply, agent.name, ports),
    ];
    prompt = { messages: [...messages, ...added], tokens: tokens + tokenizer.countMessages(added) };
  }
  return { finishReason: FinishReason.MAX_ROUNDS };
}

/** Tokens that stay free for the answer when a history is cut (DESIGN §4). */
export const ANSWER_RESERVE_TOKENS = 500;

/** The first prompt of a turn; undefined: system message and user's message alone are more than the turn may use. */
export function firstPrompt(turn: TurnInput, tokenizer: Tokenizer): Prompt | undefined {
  return cutToWindow({
    system: turn.team.agents[0].systemMessage,
    history: turn.history,
    message: turn.message,
    tokenizer,
    promptLimitTokens: Math.min(turn.team.contextWindowTokens, turn.maxTokens) - ANSWER_RESERVE_TOKENS,
  });
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
    complete({ evenIfEmpty = false } = {}): { mentioned: boolean; content: string } {
      const { rest, mentioned } = filter.end();
      show(rest);
      if (content !== "" || evenIfEmpty) {
        ports.emit({ case: "messageCompleted", value: { agent, content, messageId: ports.newMessageId() } });
      }
      return { mentioned, content };
    },
  };
}

function recordUsage(agent: string, { model, usage }: ModelAttempt, ports: TurnPorts): void {
  ports.emit({
    case: "usageRecorded",
    value: {
      agent,
      model,
      tokenUsage: {
        promptTokens: usage.promptTokens,
        completionTokens: usage.completionTokens,
        totalTokens: usage.promptTokens + usage.completionTokens,
      },
      usageSource: usage.source,
    },
  });
}

/** The agent has no tools yet: each call that a model makes up is answered with that. */
function refuseToolCalls(reply: ModelReply, agent: string, ports: TurnPorts): ModelMessage[] {
  return reply.toolCalls.map((call) => {
    const content = `There is no tool named ${JSON.stringify(call.name)}. Answer without it.`;
    const named = { agent, toolCallId: call.id, tool: call.name };
    ports.emit({ case: "toolCallStarted", value: { ...named, argumentsJson: call.argumentsJson } });
    ports.emit({ case: "toolCallCompleted", value: { ...named, outcome: ToolOutcome.ERROR, content } });
    return { role: "tool", toolCallId: call.id, content };
  });
}
