import type { Config } from "./config.ts";
import type { Model } from "./engine/model.ts";
import type { Metrics } from "./metrics.ts";
import type { ModelEndpointDefinition } from "./parley-yaml.ts";
import type { Logger } from "./platform/logger-port.ts";
import { withAttempts } from "./providers/attempt-provider.ts";
import { withBreaker } from "./providers/breaker-provider.ts";
import { withFallback } from "./providers/fallback-provider.ts";
import { createModelRouter } from "./providers/model-router.ts";
import type { ModelTransport } from "./providers/model-transport.ts";
import { createOpenAiProvider } from "./providers/openai-provider.ts";
import { withOutputBound } from "./providers/output-bound-provider.ts";
import { withCallMetrics } from "./turn-observer.ts";
import { withChatSpans } from "./turns/genai-spans.ts";

/** All configured models behind one port. */
export interface Models {
  readonly model: Model;
  /** Resolves when one endpoint answers; rejects when none does. */
  probe(signal: AbortSignal): Promise<void>;
  close(): void;
}

/** Wires each model: fallback( breaker( attempts( bound( metrics( spans( openai ) ) ) ) ) ), one breaker per endpoint and model. */
export function createModels({
  config,
  transport,
  metrics,
  logger,
}: {
  config: Pick<Config, "models" | "breaker">;
  transport: ModelTransport;
  metrics: Metrics;
  logger: Logger;
}): Models {
  const probes: ((signal: AbortSignal) => Promise<void>)[] = [];
  const closers: (() => void)[] = [];
  const wire = (definition: ModelEndpointDefinition): Model => {
    const provider = createOpenAiProvider({ ...definition, transport });
    probes.push((signal) => provider.probe(signal));
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
    closers.push(() => breaker.close());
    return breaker;
  };
  const chains = new Map<string, Model>();
  for (const [name, { endpoints }] of config.models) {
    const [first, ...others] = endpoints;
    chains.set(name, withFallback([wire(first), ...others.map(wire)]));
  }
  return {
    model: createModelRouter(chains),
    probe: async (signal) => void (await Promise.any(probes.map((probe) => probe(signal)))),
    close: () => {
      for (const close of closers) close();
    },
  };
}
