import { runRoundRobinTeam } from "./round-robin-team.ts";
import { runSingleTeam } from "./single-team.ts";
import type { TurnEnd, TurnInput, TurnPorts } from "./turn.ts";

/** Runs a turn by its team's kind. */
export function runTeam(turn: TurnInput, ports: TurnPorts): Promise<TurnEnd> {
  switch (turn.team.kind) {
    case "single":
      return runSingleTeam(turn, ports);
    case "round_robin":
      return runRoundRobinTeam(turn, ports);
  }
}
