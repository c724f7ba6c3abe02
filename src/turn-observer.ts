import { FinishReason } from "../gen/parley/chat/v1/turn_pb.js";
import type { Model } from "./engine/model.ts";
import { Failure } from "./failure.ts";
import type { Metrics } from "./metrics.ts";
import type { Logger } from "./platform/logger-port.ts";
import { inAgentSpan } from "./turns/genai-spans.ts";
import type { BegunTurn, TurnObserver } from "./turns/turn-runner.ts";

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
    turnEnded({ turn, finishReason, seconds, usage, failure }) {
      metrics.turnEnded(finishReason);
      if (failure !== undefined) metrics.agentFailed(failure.reason);
      const facts = {
        ...factsOf(turn),
        finish_reason: FinishReason[finishReason],
        duration_ms: Math.round(seconds * 1_000),
        prompt_tokens: usage.reduce((sum, call) => sum + call.promptTokens, 0),
        completion_tokens: usage.reduce((sum, call) => sum + call.completionTokens, 0),
      };
      if (failure === undefined) logger.info(facts, "turn ended");
      else logger.warn({ ...facts, reason: failure.reason, error: failure }, "turn failed");
    },
    turnLost({ turn, error }) {
      metrics.turnEnded();
      if (error instanceof Failure && error.reason === "SESSION_DELETED") {
        logger.info({ ...factsOf(turn), reason: error.reason }, "turn ended with its session");
        return;
      }
      logger.error({ ...factsOf(turn), error }, "turn lost: its end could not be written");
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
