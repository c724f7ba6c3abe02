import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import type { Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import { type Tool as ListedTool, ToolListChangedNotificationSchema } from "@modelcontextprotocol/sdk/types.js";
import type { JsonSchemaType, JsonSchemaValidator } from "@modelcontextprotocol/sdk/validation/types.js";
import type { McpServerDefinition } from "./mcp-servers-yaml.ts";
import { createMcpTransport, isOversize } from "./mcp-transport.ts";
import { lenientSchemaValidator, schemaValidator } from "./schema-validator.ts";

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
  /** Lists the tools again. Rejects as the server does. */
  relist(): Promise<void>;
  /** Lists them again in the background, if that was long ago: over HTTP a server does not say that they have changed. */
  relistIfOld(): void;
  close(): Promise<void>;
}

/** Pages of a list of tools that are read at most: a server that never ends is none. */
const MAX_PAGES = 100;

/** A list of tools that is older than this many milliseconds is read again when one of them is called. */
const LIST_IS_OLD_MS = 300_000;

/** A server over HTTP is told that its session ends, and has this long to answer, in milliseconds. */
const GOODBYE_MS = 1_000;

/**
 * Reaches a server and lists its tools. Rejects when it cannot be reached in time, or the signal is aborted before; `onLost` is
 * called once if it is lost later.
 */
export async function openMcpConnection(
  definition: McpServerDefinition,
  { version, signal, onLost }: { version: string; signal: AbortSignal; onLost: () => void },
): Promise<McpConnection> {
  const client = new Client(
    { name: "parley", version },
    { capabilities: {}, jsonSchemaValidator: { getValidator: lenientSchemaValidator } },
  );
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
  let listedMs = 0;
  const relist = async (): Promise<void> => {
    listedMs = performance.now();
    tools = await listTools(client, options);
  };
  client.setNotificationHandler(ToolListChangedNotificationSchema, () => relist().catch(() => undefined));
  const transport = createMcpTransport(definition);
  const close = async (): Promise<void> => {
    if (lost === undefined) await sayGoodbye(transport);
    await client.close();
  };
  const giveUp = (): void => void client.close().catch(() => undefined);
  signal.addEventListener("abort", giveUp, { once: true });
  try {
    signal.throwIfAborted();
    await client.connect(transport, options);
    await relist();
  } catch (error) {
    await client.close().catch(() => undefined);
    throw error;
  } finally {
    signal.removeEventListener("abort", giveUp);
  }
  return {
    client,
    get tools() {
      return tools;
    },
    get lost() {
      return lost;
    },
    relist,
    relistIfOld() {
      if (performance.now() - listedMs > LIST_IS_OLD_MS) relist().catch(() => undefined);
    },
    close,
  };
}

async function sayGoodbye(transport: Transport): Promise<void> {
  if (!(transport instanceof StreamableHTTPClientTransport)) return;
  const late = Promise.withResolvers<void>();
  const timer = setTimeout(late.resolve, GOODBYE_MS);
  await Promise.race([transport.terminateSession().catch(() => undefined), late.promise]);
  clearTimeout(timer);
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
  let validate: JsonSchemaValidator<unknown> | undefined;
  return {
    ...tool,
    problemOf(args) {
      validate ??= schemaValidator(tool.inputSchema as JsonSchemaType);
      return validate(args).errorMessage;
    },
  };
}
