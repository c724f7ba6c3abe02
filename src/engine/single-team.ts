import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { Failure } from "../failure.ts";
import { ANSWER_RESERVE_TOKENS, answer, startRounds, toolTokens } from "./agent-answer.ts";
import { cutToWindow, type Prompt } from "./context-window.ts";
import { tokenizerFor } from "./tokenizer.ts";
import type { TurnEnd, TurnInput, TurnPorts } from "./turn.ts";

/**
 * Runs a turn of a team of one agent: one model call, and one more for each round of tool calls that the model asks for.
 * Throws TURN_TOKEN_BUDGET when the message does not fit alone, and what the model throws.
 */
export async function runSingleTeam(turn: TurnInput, ports: TurnPorts): Promise<TurnEnd> {
  const { team } = turn;
  const [agent] = team.agents;
  const prompt = firstPrompt(turn, ports);
  if (prompt === undefined) throw new Failure("TURN_TOKEN_BUDGET");
  const { end, isStopped } = await answer({ agent, team, prompt, rounds: startRounds(team) }, ports);
  return end ?? { finishReason: isStopped ? FinishReason.TOKEN_BUDGET : FinishReason.STOP };
}

/**
 * The first prompt of a turn; undefined: system message and user's message alone are more than the turn may use, or who
 * answers alone.
 */
export function firstPrompt(
  turn: Pick<TurnInput, "team" | "history" | "message" | "maxTokens">,
  ports: Pick<TurnPorts, "tools">,
  agent = turn.team.agents[0],
): Prompt | undefined {
  const tokenizer = tokenizerFor(agent.model);
  const isAlone = turn.team.kind === "single";
  const ownTokens = isAlone ? (agent.maxTokens ?? Number.POSITIVE_INFINITY) : Number.POSITIVE_INFINITY;
  return cutToWindow({
    system: agent.systemMessage,
    history: turn.history,
    current: {
      messages: [{ role: "user", content: turn.message }],
      extraTokens: toolTokens(agent, tokenizer, ports),
    },
    tokenizer,
    promptLimitTokens: Math.min(agent.contextWindowTokens, turn.maxTokens, ownTokens) - ANSWER_RESERVE_TOKENS,
    ...(isAlone ? {} : { reader: agent.name }),
  });
}
