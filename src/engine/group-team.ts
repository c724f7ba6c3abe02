import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { Failure } from "../failure.ts";
import {
  type AgentAnswer,
  ANSWER_RESERVE_TOKENS,
  agentTokensLeft,
  answer,
  type Rounds,
  startRounds,
  stopAgent,
  toolTokens,
} from "./agent-answer.ts";
import { cutToWindow, saidBy } from "./context-window.ts";
import { askPerson, PERSON } from "./person.ts";
import type { AgentDefinition } from "./team.ts";
import { createTermination } from "./termination.ts";
import { tokenizerFor } from "./tokenizer.ts";
import type { TurnEnd, TurnInput, TurnPorts } from "./turn.ts";

/** What was said in this turn, oldest first. */
export type Said = readonly { readonly agent: string; readonly content: string }[];

/** Who speaks next, or why the turn ends. */
export type NextSpeaker = AgentDefinition | TurnEnd;

/** What of a conversation its kind of team decides. Depends on nothing but what it is given: see {@link TurnPorts}. */
export interface Conversation {
  next(so: {
    readonly said: Said;
    readonly last: Speech | undefined;
    readonly rounds: Rounds;
    /** Who may not speak any more; never all. */
    readonly stopped: ReadonlySet<AgentDefinition>;
  }): Promise<NextSpeaker>;
}

/** An agent's newest answer. */
export interface Speech extends AgentAnswer {
  readonly agent: AgentDefinition;
}

/**
 * Runs a turn of several agents who speak one at a time, each knowing all that was said, until one mentions the termination
 * text, the team's kind has nobody speak next, or a bound is met. Throws as `runSingleTeam`.
 */
export async function runGroupTeam(turn: TurnInput, ports: TurnPorts, { next }: Conversation): Promise<TurnEnd> {
  const { team } = turn;
  const rounds = startRounds(team);
  const stopped = new Set<AgentDefinition>();
  const agents = team.agents.filter(({ isPerson = false }) => !isPerson);
  const said: { agent: string; content: string }[] = [];
  const spoken = new Map<string, number>();
  const termination = team.termination === undefined ? undefined : createTermination(team.termination);
  let last: Speech | undefined;
  for (;;) {
    // What is left is at most the person, who has nobody to talk to.
    if (agents.every((agent) => stopped.has(agent))) return { finishReason: FinishReason.TOKEN_BUDGET };
    const agent = await next({ said, last, rounds, stopped });
    if ("finishReason" in agent) return agent;
    if (agent.isPerson) {
      const answer = answerOfPerson(said, ports);
      if ("finishReason" in answer) return answer;
      const { usedTokens, timeMs } = last ?? { usedTokens: 0, timeMs: turn.startTimeMs };
      last = { agent, content: answer.text, end: undefined, isStopped: false, calls: [], usedTokens, timeMs };
      // Replies are consecutive until the person has a say.
      spoken.clear();
    } else {
      const times = spoken.get(agent.name) ?? 0;
      if (rounds.left === 0 || times === team.maxConsecutiveAutoReply) return { finishReason: FinishReason.MAX_ROUNDS };
      spoken.set(agent.name, times + 1);
      const ownTokensLeft = agentTokensLeft(agent, rounds);
      const prompt = promptFor(agent, { turn, said, ownTokensLeft, ports });
      if (prompt === undefined && ownTokensLeft < ports.tokensLeft()) {
        stopAgent(agent, ports);
        const { usedTokens, timeMs } = last ?? { usedTokens: 0, timeMs: turn.startTimeMs };
        last = { agent, content: "", end: undefined, isStopped: true, calls: [], usedTokens, timeMs };
        stopped.add(agent);
        continue;
      }
      if (prompt === undefined) {
        if (rounds.left === team.maxRounds) throw new Failure("TURN_TOKEN_BUDGET");
        return { finishReason: FinishReason.TOKEN_BUDGET };
      }
      last = { agent, ...(await answer({ agent, team, prompt, rounds }, ports)) };
      if (last.end !== undefined) return last.end;
      if (last.isStopped) stopped.add(agent);
      if (last.isStopped && last.content === "") continue;
    }
    const { content, handoff, calls, usedTokens, timeMs } = last;
    if (content !== "" || handoff === undefined) said.push({ agent: agent.name, content });
    if (handoff !== undefined) said.push({ agent: agent.name, content: `Handed over to ${handoff}.` });
    const elapsedMs = timeMs - turn.startTimeMs;
    const messages = said.length + 1;
    const met = termination?.({ agent: agent.name, content, messages, usedTokens, elapsedMs, calls, handoff });
    if (met !== undefined) return { finishReason: FinishReason.TERMINATED, termination: met };
  }
}

/** What the person says, or the turn's end with the question. */
function answerOfPerson(said: Said, ports: TurnPorts): { readonly text: string } | TurnEnd {
  const id = ports.newToolCallId(PERSON);
  const { agent = PERSON, content: prompt = "" } = said.at(-1) ?? {};
  return ports.answerTo({ id }) ?? askPerson({ id, agent, prompt }, ports);
}

function promptFor(
  agent: AgentDefinition,
  {
    turn,
    said,
    ownTokensLeft,
    ports,
  }: { turn: TurnInput; said: Said; ownTokensLeft: number; ports: Pick<TurnPorts, "tools" | "tokensLeft"> },
) {
  const tokenizer = tokenizerFor(agent.model);
  return cutToWindow({
    system: agent.systemMessage,
    history: turn.history,
    current: {
      messages: [
        { role: "user", content: turn.message },
        ...said.map(({ agent: speaker, content }) =>
          speaker === PERSON ? ({ role: "user", content } as const) : saidBy(speaker, { content, reader: agent.name }),
        ),
      ],
      extraTokens: toolTokens(agent, tokenizer, ports),
    },
    tokenizer,
    promptLimitTokens: Math.min(agent.contextWindowTokens, ports.tokensLeft(), ownTokensLeft) - ANSWER_RESERVE_TOKENS,
    reader: agent.name,
  });
}
