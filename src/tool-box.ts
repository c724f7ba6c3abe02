import type { Config } from "./config.ts";
import type { Tool, ToolBox } from "./engine/tool.ts";
import type { Metrics } from "./metrics.ts";
import type { Logger } from "./platform/logger-port.ts";
import { createSharedParts, type SharedParts } from "./platform/shared-parts.ts";
import { type McpServer, startMcpServer } from "./tools/mcp-server.ts";
import { type McpServerDefinition, splitToolName } from "./tools/mcp-servers-yaml.ts";
import { mcpTool } from "./tools/mcp-tools.ts";
import { withToolMetrics } from "./turn-observer.ts";
import { withToolSpans } from "./turns/genai-spans.ts";

/** All tools behind one port. */
export interface Tools {
  readonly box: ToolBox;
  /** Gives their servers back. */
  close(): void;
}

export type ToolServers = SharedParts<McpServerDefinition, McpServer>;

/** Who has the tools that are part of Parley, in metrics. */
const BUILT_IN = "parley";

/** Servers of tools; who takes one has it reached. */
export function createToolServers({
  config,
  metrics,
  logger,
}: {
  config: Pick<Config, "breaker" | "version">;
  metrics: Metrics;
  logger: Logger;
}): ToolServers {
  const make = (definition: McpServerDefinition): McpServer => {
    const { name: server } = definition;
    const observer = {
      onBreaker(state: Parameters<Metrics["toolBreakerChanged"]>[0]["state"]) {
        metrics.toolBreakerChanged({ server, state });
        if (state !== "closed") logger.warn({ server, state }, "tool server's breaker changed");
      },
      onConnected: () => logger.info({ server }, "tool server reached"),
      onLost: (error: unknown) => logger.warn({ server, error }, "tool server not reached; it is tried again"),
    };
    return startMcpServer(definition, { version: config.version, breaker: config.breaker, observer });
  };
  return createSharedParts({
    // What is declared of its tools is no reason to reach it anew.
    keyOf: ({ tools: _, trustAnnotations: __, ...reached }) => JSON.stringify(reached),
    make,
    close: (server) => server.close(),
  });
}

/**
 * Begins to reach the configured servers and wires each tool: metrics( spans( tool ) ). Which of them an agent may call is the
 * agent's: the box has any tool of any server.
 */
export function createTools({
  tools,
  mcpServers,
  servers,
  metrics,
}: Pick<Config, "tools" | "mcpServers"> & { servers: ToolServers; metrics: Metrics }): Tools {
  const reached = new Map([...mcpServers].map(([name, definition]) => [name, servers.take(definition)]));
  const wired = new Map<string, Tool>();
  const find = (name: string): Tool | undefined => {
    const builtIn = tools.get(name);
    if (builtIn !== undefined) return observed(builtIn, { server: BUILT_IN, tool: name, metrics });
    const split = splitToolName(name);
    const definition = mcpServers.get(split?.server ?? "");
    const server = reached.get(split?.server ?? "")?.part;
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
    close: () => {
      for (const { giveBack } of reached.values()) giveBack();
    },
  };
}

function observed(tool: Tool, { metrics, ...names }: { server: string; tool: string; metrics: Metrics }): Tool {
  return withToolMetrics(withToolSpans(tool), { ...names, metrics });
}
