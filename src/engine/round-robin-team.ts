import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { Failure } from "../failure.ts";
import { ANSWER_RESERVE_TOKENS, answer, toolTokens } from "./agent-answer.ts";
import { cutToWindow, saidBy } from "./context-window.ts";
import type { AgentDefinition } from "./team.ts";
import { tokenizerFor } from "./tokenizer.ts";
import type { TurnEnd, TurnInput, TurnPorts } from "./turn.ts";

/**
 * Runs a turn of a team whose agents speak one after the other, each knowing all that was said, until one mentions the
 * termination text or a bound is met (AutoGen's RoundRobinGroupChat). Throws as `runSingleTeam`.
 */
export async function runRoundRobinTeam(turn: TurnInput, ports: TurnPorts): Promise<TurnEnd> {
  const { team } = turn;
  const rounds = { left: team.maxRounds };
  const said: { agent: string; content: string }[] = [];
  for (let spoken = 0; spoken < team.agents.length * team.maxConsecutiveAutoReply; spoken++) {
    const agent = team.agents[spoken % team.agents.length] as AgentDefinition;
    const prompt = promptFor(agent, { turn, said, ports });
    if (prompt === undefined) {
      if (spoken === 0) throw new Failure("TURN_TOKEN_BUDGET");
      return { finishReason: FinishReason.TOKEN_BUDGET };
    }
    const { content, end } = await answer({ agent, team, prompt, rounds }, ports);
    if (end !== undefined) return end;
    if (rounds.left === 0) break;
    said.push({ agent: agent.name, content });
  }
  return { finishReason: FinishReason.MAX_ROUNDS };
}

function promptFor(
  agent: AgentDefinition,
  {
    turn,
    said,
    ports,
  }: {
    turn: TurnInput;
    said: readonly { agent: string; content: string }[];
    ports: Pick<TurnPorts, "tools" | "tokensLeft">;
  },
) {
  const tokenizer = tokenizerFor(agent.model);
  return cutToWindow({
    system: agent.systemMessage,
    history: turn.history,
    current: {
      messages: [
        { role: "user", content: turn.message },
        ...said.map(({ agent: speaker, content }) => saidBy(speaker, { content, reader: agent.name })),
      ],
      extraTokens: toolTokens(agent, tokenizer, ports),
    },
    tokenizer,
    promptLimitTokens: Math.min(agent.contextWindowTokens, ports.tokensLeft()) - ANSWER_RESERVE_TOKENS,
    reader: agent.name,
  });
}
