import type { Config } from "./config.ts";
import type { Metrics } from "./metrics.ts";
import { createModelParts, createModels } from "./models.ts";
import type { Logger } from "./platform/logger-port.ts";
import type { ModelTransport } from "./providers/model-transport.ts";
import { createToolServers, createTools } from "./tool-box.ts";
import type { CurrentDefinitions, Definitions } from "./turns/definitions.ts";

/** What of the configuration may change while the process runs. */
export type DefinitionsConfig = Pick<Config, "teams" | "defaultTeam" | "models" | "mcpServers">;

/** Definitions of the configuration that can be replaced. */
export interface LiveDefinitions extends CurrentDefinitions {
  /**
   * From now on turns begin with these. Model endpoints and tool servers whose definitions are the same go on as they are,
   * breakers included; those that are gone are put away when the last turn that began with them has ended.
   */
  replace(config: DefinitionsConfig): void;
  /** Resolves when one model endpoint answers; rejects when none does. */
  probe(signal: AbortSignal): Promise<void>;
  /** Puts away model endpoints and tool servers. */
  close(): Promise<void>;
}

export function createLiveDefinitions({
  config,
  transport,
  metrics,
  logger,
}: {
  config: DefinitionsConfig & Pick<Config, "tools" | "breaker" | "version">;
  transport: ModelTransport;
  metrics: Metrics;
  logger: Logger;
}): LiveDefinitions {
  const modelParts = createModelParts({ config, transport, metrics, logger });
  const toolServers = createToolServers({ config, metrics, logger });
  const define = ({ teams, defaultTeam, models: endpoints, mcpServers }: DefinitionsConfig) => {
    metrics.expectModels(endpoints.keys());
    metrics.expectGuardrails(teams.values());
    const models = createModels({ models: endpoints, parts: modelParts });
    const tools = createTools({ tools: config.tools, mcpServers, servers: toolServers, metrics });
    let holds = 0;
    const current: Definitions = {
      teams,
      defaultTeam,
      model: models.model,
      tools: tools.box,
      hold() {
        holds++;
        let isHeld = true;
        return () => {
          if (!isHeld) return;
          isHeld = false;
          holds--;
          if (holds > 0) return;
          models.close();
          tools.close();
        };
      },
    };
    return { current, probe: models.probe, letGo: current.hold() };
  };
  let defined = define(config);
  return {
    get current() {
      return defined.current;
    },
    replace(next) {
      const before = defined;
      // What both have is taken before it is given back.
      defined = define(next);
      before.letGo();
    },
    probe: (signal) => defined.probe(signal),
    close: async () => void (await Promise.all([modelParts.close(), toolServers.close()])),
  };
}
