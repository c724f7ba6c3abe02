import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import * as z from "zod";

// A server of tools with the official SDK: Parley starts it and speaks MCP over its standard input and output.

const orders: Readonly<Record<string, string>> = {
  "A-17": "A teapot. Sent on 3 March with parcel 4711; expected on 6 March.",
  "A-18": "Two cups. Being packed.",
};

const server = new McpServer({ name: "orders", version: "1.0.0" });
server.registerTool(
  "look_up",
  { description: "Says where an order is.", inputSchema: { order: z.string().describe("The order's number: A-17") } },
  async ({ order }) => ({
    content: [{ type: "text", text: orders[order] ?? `There is no order ${order}.` }],
    isError: !(order in orders),
  }),
);
await server.connect(new StdioServerTransport());
