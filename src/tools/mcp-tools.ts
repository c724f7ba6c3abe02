import type { Tool } from "../engine/tool.ts";
import type { McpServer } from "./mcp-server.ts";
import type { McpServerDefinition } from "./mcp-servers-yaml.ts";

/** What a model is told of a tool that it may call and that nobody has described. */
const NOT_DESCRIBED = "Not described: its server has not been reached yet. A call may work all the same.";

/** A server's tool as agents call it, under the name `server.tool`, whether or not the server was reached yet. */
export function mcpTool(
  name: string,
  { tool, server, definition }: { tool: string; server: McpServer; definition: McpServerDefinition },
): Tool {
  const declared = definition.tools.get(tool)?.idempotent;
  return {
    name,
    get description() {
      const described = server.describe(tool);
      return described === undefined ? NOT_DESCRIBED : (described.description ?? "");
    },
    get parameters() {
      return (server.describe(tool)?.inputSchema ?? { type: "object" }) as Tool["parameters"];
    },
    get idempotent() {
      if (declared !== undefined || !definition.trustAnnotations) return declared === true;
      const { idempotentHint, readOnlyHint } = server.describe(tool)?.annotations ?? {};
      return idempotentHint === true || readOnlyHint === true;
    },
    call: (argumentsJson, call) => server.call(tool, argumentsJson, call),
  };
}
