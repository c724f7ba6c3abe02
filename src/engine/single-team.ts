import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { Failure } from "../failure.ts";
import { ANSWER_RESERVE_TOKENS, answer, toolTokens } from "./agent-answer.ts";
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
  const { end } = await answer({ agent, team, prompt, rounds: { left: team.maxRounds } }, ports);
  return end ?? { finishReason: FinishReason.STOP };
}

/** The first prompt of a turn; undefined: system message and user's message alone are more than the turn may use. */
export function firstPrompt(
  turn: Pick<TurnInput, "team" | "history" | "message" | "maxTokens">,
  ports: Pick<TurnPorts, "tools">,
): Prompt | undefined {
  const [agent] = turn.team.agents;
  const tokenizer = tokenizerFor(agent.model);
  return cutToWindow({
    system: agent.systemMessage,
    history: turn.history,
    current: {
      messages: [{ role: "user", content: turn.message }],
      extraTokens: toolTokens(agent, tokenizer, ports),
    },
    tokenizer,
    promptLimitTokens: Math.min(agent.contextWindowTokens, turn.maxTokens) - ANSWER_RESERVE_TOKENS,
    ...(turn.team.kind === "single" ? {} : { reader: agent.name }),
  });
}
