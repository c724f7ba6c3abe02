import type { Config } from "./config.ts";
import type { Tool, ToolBox } from "./engine/tool.ts";
import type { Metrics } from "./metrics.ts";
import type { Logger } from "./platform/logger-port.ts";
import { type McpServer, startMcpServer } from "./tools/mcp-server.ts";
import { splitToolName } from "./tools/mcp-servers-yaml.ts";
import { mcpTool } from "./tools/mcp-tools.ts";
import { withToolMetrics } from "./turn-observer.ts";
import { withToolSpans } from "./turns/genai-spans.ts";

/** All tools behind one port, and the servers that some of them are at. */
export interface Tools {
  readonly box: ToolBox;
  close(): Promise<void>;
}

/** Who has the tools that are part of Parley, in metrics. */
const BUILT_IN = "parley";

/**
 * Starts to reach the configured servers and wires each tool: metrics( spans( tool ) ). Which of them an agent may call is the
 * agent's: the box has any tool of any server.
 */
export function createTools({
  config,
  metrics,
  logger,
}: {
  config: Pick<Config, "tools" | "mcpServers" | "breaker" | "version">;
  metrics: Metrics;
  logger: Logger;
}): Tools {
  const servers = new Map<string, McpServer>();
  for (const [server, definition] of config.mcpServers) {
    const observer = {
      onBreaker(state: Parameters<Metrics["toolBreakerChanged"]>[0]["state"]) {
        metrics.toolBreakerChanged({ server, state });
        if (state !== "closed") logger.warn({ server, state }, "tool server's breaker changed");
      },
      onConnected: () => logger.info({ server }, "tool server reached"),
      onLost: (error: unknown) => logger.warn({ server, error }, "tool server not reached; it is tried again"),
    };
    servers.set(server, startMcpServer(definition, { version: config.version, breaker: config.breaker, observer }));
  }
  const wired = new Map<string, Tool>();
  const find = (name: string): Tool | undefined => {
    const builtIn = config.tools.get(name);
    if (builtIn !== undefined) return observed(builtIn, { server: BUILT_IN, tool: name, metrics });
    const split = splitToolName(name);
    const definition = config.mcpServers.get(split?.server ?? "");
    const server = servers.get(split?.server ?? "");
    if (split === undefined || definition === undefined || server === undefined) return undefined;
    return observed(mcpTool(name, { tool: split.tool, server, definition }), { ...split, metrics });
  };
  return {
    box: {
      // Asked for the tools that agents list, which are few.
      get(name) {
        const tool = wired.get(name) ?? find(name);
        if (tool !== undefined) wired.set(name, tool);
        return tool;
      },
    },
    close: async () => void (await Promise.all([...servers.values()].map((server) => server.close()))),
  };
}

function observed(tool: Tool, { metrics, ...names }: { server: string; tool: string; metrics: Metrics }): Tool {
  return withToolMetrics(withToolSpans(tool), { ...names, metrics });
}
