import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import * as z from "zod";

// A tool with an effect. That a person approves its calls is said in parley.yaml, not here.

const server = new McpServer({ name: "till", version: "1.0.0" });
server.registerTool(
  "refund",
  {
    description: "Pays an order back.",
    inputSchema: { order: z.string().describe("The order's number: A-17"), euros: z.number().positive() },
  },
  async ({ order, euros }) => ({
    content: [{ type: "text", text: `Paid back ${euros.toFixed(2)} euros for order ${order}.` }],
  }),
);
await server.connect(new StdioServerTransport());
