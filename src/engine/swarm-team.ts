import { Role } from "../../gen/parley/chat/v1/message_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { runGroupTeam } from "./group-team.ts";
import type { AgentDefinition } from "./team.ts";
import type { TurnEnd, TurnInput, TurnPorts } from "./turn.ts";

/**
 * Runs a turn of a team whose agents hand the conversation to each other by calls of `transfer_to_<agent>` (AutoGen's Swarm).
 * An answer without a hand-off is the user's: the turn ends. Whoever spoke last answers the session's next message; at first
 * that is the first agent. Who hands over to the person goes on with the answer. Throws as `runGroupTeam`.
 */
export function runSwarmTeam(turn: TurnInput, ports: TurnPorts): Promise<TurnEnd> {
  const { agents } = turn.team;
  const called = (name: string | undefined) => agents.find((agent) => agent.name === name);
  // Whoever has handed over to the person goes on with the answer.
  let asker: AgentDefinition | undefined;
  return runGroupTeam(turn, ports, {
    async next({ last, stopped }) {
      if (last === undefined) return firstOfSwarm(turn);
      if (last.agent.isPerson) return asker ?? agents[0];
      asker = last.agent;
      const to = called(last.handoff);
      // Nobody else has the word.
      if (to === undefined ? last.isStopped : stopped.has(to)) return { finishReason: FinishReason.TOKEN_BUDGET };
      return to ?? { finishReason: FinishReason.STOP };
    },
  });
}

/** Who answers a message first. */
export function firstOfSwarm({ team: { agents }, history }: Pick<TurnInput, "team" | "history">): AgentDefinition {
  const spokeLast = history.findLast(({ message }) => message?.role === Role.ASSISTANT)?.message?.agent;
  return agents.find(({ name }) => name === spokeLast) ?? agents[0];
}
