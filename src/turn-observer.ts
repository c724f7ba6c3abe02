import { GuardrailStage, ToolOutcome } from "../gen/parley/chat/v1/turn_event_pb.js";
import { FinishReason } from "../gen/parley/chat/v1/turn_pb.js";
import type { Model } from "./engine/model.ts";
import { type Tool, ToolFailure, withCall } from "./engine/tool.ts";
import { Failure } from "./failure.ts";
import type { Metrics } from "./metrics.ts";
import type { Logger } from "./platform/logger-port.ts";
import { inAgentSpan } from "./turns/genai-spans.ts";
import type { BegunTurn } from "./turns/turn-execution.ts";
import type { TurnObserver } from "./turns/turn-observer.ts";

/** Puts what happens to turns into logs, metrics and traces. Never what was said in them. */
export function createTurnObserver({ logger, metrics }: { logger: Logger; metrics: Metrics }): TurnObserver {
  const factsOf = ({ lease, team }: BegunTurn) => ({
    tenant: lease.tenant,
    session_id: lease.sessionId,
    turn_id: lease.turnId,
    agent_team: team.name,
  });
  return {
    around(turn, work) {
      metrics.turnStarted();
      const [agent] = turn.team.agents;
      const { sessionId, turnId } = turn.lease;
      return inAgentSpan({ agent: agent.name, model: agent.model, provider: "openai", sessionId, turnId }, work);
    },
    tokensRecorded: (call) => metrics.tokensUsed(call),
    guardrailTripped(turn, { guardrail, stage }) {
      metrics.guardrailTripped({ agentTeam: turn.team.name, guardrail, stage });
      logger.info({ ...factsOf(turn), guardrail, stage: GuardrailStage[stage] }, "guardrail tripped");
    },
    turnEnded({ turn, finishReason, seconds, promptTokens, completionTokens, failure }) {
      metrics.turnEnded(finishReason);
      if (failure !== undefined) metrics.agentFailed(failure.reason);
      const facts = {
        ...factsOf(turn),
        finish_reason: FinishReason[finishReason],
        duration_ms: Math.round(seconds * 1_000),
        prompt_tokens: promptTokens,
        completion_tokens: completionTokens,
      };
      if (failure === undefined) logger.info(facts, "turn ended");
      else logger.warn({ ...facts, reason: failure.reason, error: failure }, "turn failed");
    },
    turnTakenOver({ lease, takeovers }) {
      metrics.turnTakenOver();
      const { tenant, sessionId, turnId } = lease;
      logger.warn({ tenant, session_id: sessionId, turn_id: turnId, takeovers }, "turn taken over from a lost owner");
    },
    turnLost({ turn, error }) {
      metrics.turnEnded();
      if (error instanceof Failure && error.reason === "SESSION_DELETED") {
        logger.info({ ...factsOf(turn), reason: error.reason }, "turn ended with its session");
        return;
      }
      // Another owner has it, or will have it: nothing is wrong with the turn.
      const elsewhere = error instanceof Failure && (error.reason === "LEASE_LOST" || error.reason === "DRAINING");
      if (elsewhere) logger.info({ ...factsOf(turn), reason: error.reason }, "turn goes on elsewhere");
      else logger.error({ ...factsOf(turn), error }, "turn lost: its end could not be written");
    },
    overHold(turn, { model, promptTokens, completionTokens }) {
      metrics.callOverHold(model);
      const counts = { model, prompt_tokens: promptTokens, completion_tokens: completionTokens };
      logger.warn({ ...factsOf(turn), ...counts }, "a model call used more than was held for it");
    },
    unsettled(turn, error) {
      logger.error({ ...factsOf(turn), error }, "a model call could not be charged yet");
    },
    unexpected(turn, error) {
      logger.error({ ...factsOf(turn), error }, "turn failed by a defect");
    },
  };
}

/** A model whose calls are timed. */
export function withCallMetrics(model: Model, { name, metrics }: { name: string; metrics: Metrics }): Model {
  return {
    async call(request, observer) {
      const startedMs = performance.now();
      try {
        return await model.call(request, observer);
      } finally {
        metrics.modelCallEnded({ model: name, seconds: (performance.now() - startedMs) / 1_000 });
      }
    },
  };
}

/** A tool whose calls are counted and timed. */
export function withToolMetrics(
  tool: Tool,
  { metrics, ...names }: { server: string; tool: string; metrics: Metrics },
): Tool {
  return withCall(tool, async (argumentsJson, call) => {
    const startedMs = performance.now();
    let outcome = ToolOutcome.ERROR;
    try {
      const content = await tool.call(argumentsJson, call);
      outcome = ToolOutcome.OK;
      return content;
    } catch (error) {
      // What is told to stop says nothing of its end.
      if (call.signal.aborted) outcome = ToolOutcome.UNKNOWN;
      else if (error instanceof ToolFailure) outcome = error.outcome;
      throw error;
    } finally {
      metrics.toolCallEnded({ ...names, outcome, seconds: (performance.now() - startedMs) / 1_000 });
    }
  });
}
