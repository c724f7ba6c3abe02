import { GuardrailStage } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { failedCheck } from "./guardrails.ts";
import { runRoundRobinTeam } from "./round-robin-team.ts";
import { runSelectorTeam } from "./selector-team.ts";
import { runSingleTeam } from "./single-team.ts";
import { runSwarmTeam } from "./swarm-team.ts";
import type { TurnEnd, TurnInput, TurnPorts } from "./turn.ts";

/** Runs a turn by its team's kind, unless what the user says fails a check: then no model is called. */
export async function runTeam(turn: TurnInput, ports: TurnPorts): Promise<TurnEnd> {
  const guardrail = failedCheck(turn.team.guardrails?.input ?? [], turn.userTexts);
  if (guardrail !== undefined) {
    ports.emit({ case: "guardrailTripped", value: { guardrail, stage: GuardrailStage.INPUT } });
    // No later turn's model is to read it either; a question that it was to answer stays open.
    return { finishReason: FinishReason.GUARDRAIL, leavesNothing: true };
  }
  switch (turn.team.kind) {
    case "single":
      return await runSingleTeam(turn, ports);
    case "round_robin":
      return await runRoundRobinTeam(turn, ports);
    case "selector":
      return await runSelectorTeam(turn, ports);
    case "swarm":
      return await runSwarmTeam(turn, ports);
  }
}
