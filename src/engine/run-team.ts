import { runRoundRobinTeam } from "./round-robin-team.ts";
import { runSelectorTeam } from "./selector-team.ts";
import { runSingleTeam } from "./single-team.ts";
import { runSwarmTeam } from "./swarm-team.ts";
import type { TurnEnd, TurnInput, TurnPorts } from "./turn.ts";

/** Runs a turn by its team's kind. */
export function runTeam(turn: TurnInput, ports: TurnPorts): Promise<TurnEnd> {
  switch (turn.team.kind) {
    case "single":
      return runSingleTeam(turn, ports);
    case "round_robin":
      return runRoundRobinTeam(turn, ports);
    case "selector":
      return runSelectorTeam(turn, ports);
    case "swarm":
      return runSwarmTeam(turn, ports);
  }
}
