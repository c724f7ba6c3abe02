import * as z from "zod";

/** A server of tools that speaks MCP, and how it is reached. */
export interface McpServerDefinition {
  readonly name: string;
  readonly transport:
    | {
        readonly kind: "stdio";
        readonly command: string;
        readonly args: readonly string[];
        /** Variables that the process gets beside PATH, HOME and the like; nothing else of this process' environment. */
        readonly env: Readonly<Record<string, string>>;
      }
    | { readonly kind: "http"; readonly url: string; readonly headers: Readonly<Record<string, string>> };
  /** The server has this long to be connected and to list its tools, in milliseconds. */
  readonly connectTimeoutMs: number;
  /** A call that has no answer is given up after this many milliseconds, its wait for its turn included. */
  readonly callTimeoutMs: number;
  /** Calls at a time; further ones wait. */
  readonly maxConcurrentCalls: number;
  /** Bytes of one answer of the server; a longer one is not read to its end. */
  readonly maxResultBytes: number;
  /** What is declared of single tools, by the server's name of each. */
  readonly tools: ReadonlyMap<string, McpToolDefinition>;
  /** Whether the server is believed that a tool is idempotent or only reads, where nothing is declared. */
  readonly trustAnnotations: boolean;
}

export interface McpToolDefinition {
  /** Whether a call whose end is not known may be made again; undefined: nothing is declared. */
  readonly idempotent: boolean | undefined;
  /** Whether a person has to approve each call. */
  readonly needsApproval: boolean;
}

/** Text, or the name of a variable that holds it: what is secret has no place in a file. */
const textOrReference = z.union([z.string(), z.strictObject({ from_env: z.string().min(1) })], {
  error: () => "must be text, or {from_env: NAME}",
});

/** Section `mcp_servers` of parley.yaml. */
export const mcpServersYamlSchema = z
  .record(
    // The first dot of a tool's name ends the server's; models are told two underscores in its place.
    z.string().regex(/^[A-Za-z0-9](-?[A-Za-z0-9]){0,31}$/, {
      error: () => "must be 1 to 32 letters and digits, with single hyphens between them",
    }),
    z
      .strictObject({
        command: z.string().min(1).optional(),
        args: z.array(z.string()).optional(),
        env: z.record(z.string(), textOrReference).optional(),
        url: z.url({ protocol: /^https?$/ }).optional(),
        headers: z.record(z.string(), textOrReference).optional(),
        connect_timeout_ms: z.int().min(100).max(600_000).default(10_000),
        call_timeout_ms: z.int().min(100).max(600_000).default(60_000),
        max_concurrent_calls: z.int().min(1).max(1_000).default(8),
        max_result_bytes: z
          .int()
          .min(1_024)
          .max(64 * 1_048_576)
          .default(1_048_576),
        trust_annotations: z.boolean().default(false),
        tools: z
          .record(
            z.string(),
            z.strictObject({
              idempotent: z.boolean().optional(),
              approval: z.enum(["none", "required"]).default("none"),
            }),
          )
          .default({}),
      })
      .refine(({ command, url }) => (command === undefined) !== (url === undefined), {
        error: () => "must have either command or url",
      })
      .refine(({ url, args, env }) => url === undefined || (args === undefined && env === undefined), {
        error: () => "has args or env, which go with command, beside url",
      })
      .refine(({ command, headers }) => command === undefined || headers === undefined, {
        error: () => "has headers, which go with url, beside command",
      }),
  )
  .default({});

/** Reads the section; problems are told with the path of their field. */
export function readMcpServers(
  yaml: z.infer<typeof mcpServersYamlSchema>,
  {
    env,
    onProblem,
  }: {
    /** Where references are looked up. */
    env: Readonly<Record<string, string | undefined>>;
    onProblem: (path: readonly PropertyKey[], problem: string) => void;
  },
): ReadonlyMap<string, McpServerDefinition> {
  const resolved = (path: readonly PropertyKey[], texts: Record<string, z.infer<typeof textOrReference>> = {}) =>
    Object.fromEntries(
      Object.entries(texts).map(([name, text]) => {
        if (typeof text === "string") return [name, text];
        const value = env[text.from_env];
        if (value === undefined) onProblem([...path, name, "from_env"], `${text.from_env} is not set`);
        return [name, value ?? ""];
      }),
    );
  return new Map(
    Object.entries(yaml).map(([name, server]) => {
      const { command = "", args = [], url } = server;
      const at = ["mcp_servers", name] as const;
      const transport: McpServerDefinition["transport"] =
        url === undefined
          ? { kind: "stdio", command, args, env: resolved([...at, "env"], server.env) }
          : { kind: "http", url, headers: headersOf(resolved([...at, "headers"], server.headers), at, onProblem) };
      const tools = Object.entries(server.tools).map(
        ([tool, { idempotent, approval }]) => [tool, { idempotent, needsApproval: approval === "required" }] as const,
      );
      const definition: McpServerDefinition = {
        name,
        transport,
        connectTimeoutMs: server.connect_timeout_ms,
        callTimeoutMs: server.call_timeout_ms,
        maxConcurrentCalls: server.max_concurrent_calls,
        maxResultBytes: server.max_result_bytes,
        tools: new Map(tools),
        trustAnnotations: server.trust_annotations,
      };
      return [name, definition];
    }),
  );
}

/** Headers that can be sent; what is wrong is told without its value. */
function headersOf(
  headers: Record<string, string>,
  at: readonly PropertyKey[],
  onProblem: (path: readonly PropertyKey[], problem: string) => void,
): Record<string, string> {
  for (const [name, value] of Object.entries(headers)) {
    try {
      new Headers([[name, value]]);
    } catch {
      onProblem([...at, "headers", name], "is no header that can be sent");
    }
  }
  return headers;
}

/** A tool's name as agents list it: the server's, a dot, the server's name of the tool. Undefined: it is no such name. */
export function splitToolName(name: string): { readonly server: string; readonly tool: string } | undefined {
  const dot = name.indexOf(".");
  return dot < 1 ? undefined : { server: name.slice(0, dot), tool: name.slice(dot + 1) };
}

/**
 * Why an agent cannot list a tool by this name, if it cannot. Models take names of at most 64 characters of [A-Za-z0-9_-],
 * in which a dot becomes two underscores.
 */
export function problemOfToolName(name: string, servers: ReadonlyMap<string, McpServerDefinition>): string | undefined {
  const split = splitToolName(name);
  if (split === undefined || !servers.has(split.server)) return `there is no tool named ${name}`;
  if (!/^[A-Za-z0-9_-]+$/.test(split.tool) || name.length > 63) {
    return `${name} is no name that models take: server and tool together have at most 63 characters of [A-Za-z0-9_-] and one dot`;
  }
  return undefined;
}

/** Whether a tool that an agent lists is declared as one whose calls a person approves. */
export function needsApproval(name: string, servers: ReadonlyMap<string, McpServerDefinition>): boolean {
  const { server = "", tool = "" } = splitToolName(name) ?? {};
  return servers.get(server)?.tools.get(tool)?.needsApproval === true;
}
