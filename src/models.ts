import type { Config } from "./config.ts";
import type { Model } from "./engine/model.ts";
import type { Metrics } from "./metrics.ts";
import type { ModelDefinition, ModelEndpointDefinition } from "./parley-yaml.ts";
import type { Logger } from "./platform/logger-port.ts";
import { createSharedParts, type SharedParts } from "./platform/shared-parts.ts";
import { withAttempts } from "./providers/attempt-provider.ts";
import { withBreaker } from "./providers/breaker-provider.ts";
import { withFallback } from "./providers/fallback-provider.ts";
import { createModelRouter } from "./providers/model-router.ts";
import type { ModelTransport } from "./providers/model-transport.ts";
import { createOpenAiProvider } from "./providers/openai-provider.ts";
import { withOutputBound } from "./providers/output-bound-provider.ts";
import { withCallMetrics } from "./turn-observer.ts";
import { withChatSpans } from "./turns/genai-spans.ts";

/** Models behind one port. */
export interface Models {
  readonly model: Model;
  /** Resolves when one endpoint answers; rejects when none does. */
  probe(signal: AbortSignal): Promise<void>;
  /** Gives their endpoints back. */
  close(): void;
}

/** A model at an endpoint, with its breaker. */
interface ModelPart {
  readonly model: Model;
  probe(signal: AbortSignal): Promise<void>;
  close(): void;
}

export type ModelParts = SharedParts<ModelEndpointDefinition, ModelPart>;

/** Wires each endpoint: breaker( attempts( bound( metrics( spans( openai ) ) ) ) ), one breaker per endpoint and model. */
export function createModelParts({
  config,
  transport,
  metrics,
  logger,
}: {
  config: Pick<Config, "breaker">;
  transport: ModelTransport;
  metrics: Metrics;
  logger: Logger;
}): ModelParts {
  const make = (definition: ModelEndpointDefinition): ModelPart => {
    const provider = createOpenAiProvider({ ...definition, transport });
    const { host: endpoint } = new URL(definition.baseUrl);
    const { model } = definition;
    const observed = withCallMetrics(withChatSpans(provider, { provider: "openai" }), { name: model, metrics });
    const breaker = withBreaker(withAttempts(withOutputBound(observed, model), model), {
      ...config.breaker,
      onState(state) {
        metrics.breakerChanged({ endpoint, model, state });
        if (state !== "closed") logger.warn({ endpoint, model, state }, "model breaker changed");
      },
    });
    return { model: breaker, probe: (signal) => provider.probe(signal), close: () => breaker.close() };
  };
  return createSharedParts({ keyOf: JSON.stringify, make, close: (part) => part.close() });
}

/** All configured models: each is fallback( endpoints in their order ). */
export function createModels({
  models,
  parts,
}: {
  models: ReadonlyMap<string, ModelDefinition>;
  parts: ModelParts;
}): Models {
  const taken: ReturnType<ModelParts["take"]>[] = [];
  const wire = (definition: ModelEndpointDefinition): Model => {
    const endpoint = parts.take(definition);
    taken.push(endpoint);
    return endpoint.part.model;
  };
  const chains = new Map<string, Model>();
  for (const [name, { endpoints }] of models) {
    const [first, ...others] = endpoints;
    chains.set(name, withFallback([wire(first), ...others.map(wire)]));
  }
  return {
    model: createModelRouter(chains),
    probe: async (signal) => void (await Promise.any(taken.map(({ part }) => part.probe(signal)))),
    close: () => {
      for (const endpoint of taken) endpoint.giveBack();
    },
  };
}
