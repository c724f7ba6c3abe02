import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { type Tool as ListedTool, ToolListChangedNotificationSchema } from "@modelcontextprotocol/sdk/types.js";
import { AjvJsonSchemaValidator } from "@modelcontextprotocol/sdk/validation/ajv";
import type { JsonSchemaType } from "@modelcontextprotocol/sdk/validation/types.js";
import type { McpServerDefinition } from "./mcp-servers-yaml.ts";
import { createMcpTransport, isOversize } from "./mcp-transport.ts";

/** A server's tool, as the server describes it. */
export interface DescribedTool extends ListedTool {
  /** What is wrong with a call's arguments; undefined: they fit. Throws where the schema is none. */
  problemOf(args: unknown): string | undefined;
}

/** A server that was reached, until it is lost. */
export interface McpConnection {
  readonly client: Client;
  /** Its tools by name, as last listed. */
  readonly tools: ReadonlyMap<string, DescribedTool>;
  /** Why nothing more comes of it, when it is lost. */
  readonly lost: Error | undefined;
  close(): Promise<void>;
}

/** Pages of a list of tools that are read at most: a server that never ends is none. */
const MAX_PAGES = 100;

/** Reaches a server and lists its tools. Rejects when it cannot be reached in time; `onLost` is called once if it is lost later. */
export async function openMcpConnection(
  definition: McpServerDefinition,
  { version, onLost }: { version: string; onLost: () => void },
): Promise<McpConnection> {
  const client = new Client({ name: "parley", version }, { capabilities: {} });
  let lost: Error | undefined;
  let newest: Error | undefined;
  let tools: ReadonlyMap<string, DescribedTool> = new Map();
  client.onerror = (error) => {
    // What comes behind a message that was cut is noise.
    if (!isOversize(newest)) newest = error;
  };
  client.onclose = () => {
    lost = newest ?? new Error("the connection was closed");
    onLost();
  };
  const options = { timeout: definition.connectTimeoutMs };
  const list = async (): Promise<void> => {
    tools = await listTools(client, options);
  };
  client.setNotificationHandler(ToolListChangedNotificationSchema, () => list().catch(() => undefined));
  try {
    await client.connect(createMcpTransport(definition), options);
    await list();
  } catch (error) {
    await client.close().catch(() => undefined);
    throw error;
  }
  return {
    client,
    get tools() {
      return tools;
    },
    get lost() {
      return lost;
    },
    close: () => client.close(),
  };
}

async function listTools(client: Client, options: { timeout: number }): Promise<ReadonlyMap<string, DescribedTool>> {
  const tools = new Map<string, DescribedTool>();
  let cursor: string | undefined;
  for (let page = 0; page < MAX_PAGES; page++) {
    const listed = await client.listTools(cursor === undefined ? {} : { cursor }, options);
    for (const tool of listed.tools) tools.set(tool.name, described(tool));
    cursor = listed.nextCursor;
    if (cursor === undefined) return tools;
  }
  throw new Error("the list of tools does not end");
}

function described(tool: ListedTool): DescribedTool {
  let validate: ReturnType<AjvJsonSchemaValidator["getValidator"]> | undefined;
  return {
    ...tool,
    problemOf(args) {
      // One validator each: it remembers schemas by their $id, which two tools may both have.
      validate ??= new AjvJsonSchemaValidator().getValidator(tool.inputSchema as JsonSchemaType);
      return validate(args).errorMessage;
    },
  };
}
