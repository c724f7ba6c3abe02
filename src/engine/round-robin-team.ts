import { runGroupTeam } from "./group-team.ts";
import type { AgentDefinition } from "./team.ts";
import type { TurnEnd, TurnInput, TurnPorts } from "./turn.ts";

/** Runs a turn of a team whose agents speak one after the other (AutoGen's RoundRobinGroupChat). Throws as `runGroupTeam`. */
export function runRoundRobinTeam(turn: TurnInput, ports: TurnPorts): Promise<TurnEnd> {
  const { agents } = turn.team;
  let turns = 0;
  return runGroupTeam(turn, ports, {
    async next({ stopped }) {
      for (;;) {
        const agent = agents[turns++ % agents.length] as AgentDefinition;
        // Not all of them are: then nobody is asked for the next.
        if (!stopped.has(agent)) return agent;
      }
    },
  });
}
