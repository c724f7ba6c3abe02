import { appendFileSync } from "node:fs";
import { createServer, type Server as HttpServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import * as z from "zod";

// A server of tools with the SDK's own classes: run as a program it speaks over standard input and output, and
// `startHttpMcpServer` has it over HTTP. MCP_CALLS names a file that gets a line for each call.

/** How the process of a server is started. */
export const STDIO_SERVER = { command: process.execPath, args: [import.meta.filename] } as const;

const { MCP_CALLS = "" } = process.env;

function note(line: string): void {
  if (MCP_CALLS !== "") appendFileSync(MCP_CALLS, `${line}\n`);
}

function text(said: string) {
  return { content: [{ type: "text" as const, text: said }] };
}

const never = (): Promise<never> => new Promise(() => undefined);

/** How many calls of `busy` there are, and were at most. */
const busy = { now: 0, most: 0 };

/** Breaks the way to the client amid a call, or writes to it what is no message. */
interface Faults {
  die(): void;
  write(text: string): void;
}

function createTools({ die, write }: Faults): McpServer {
  const server = new McpServer({ name: "tools-for-tests", version: "1.0.0" });
  const empty = z.strictObject({});
  server.registerTool("echo", { description: "Says it again.", inputSchema: { text: z.string() } }, async (args) => {
    note(`echo ${args.text}`);
    return text(args.text);
  });
  server.registerTool(
    "add",
    { inputSchema: { a: z.number(), b: z.number() }, outputSchema: { sum: z.number() } },
    async ({ a, b }) => ({ ...text(String(a + b)), structuredContent: { sum: a + b } }),
  );
  server.registerTool("refuse", { inputSchema: empty }, async () => ({ ...text("Not on a Sunday."), isError: true }));
  server.registerTool("hang", { inputSchema: empty }, async (_, { signal }) => {
    note("hang");
    signal.addEventListener("abort", () => note("hang was cancelled"));
    return await never();
  });
  server.registerTool("die", { inputSchema: empty }, async () => {
    note("die");
    die();
    return await never();
  });
  server.registerTool("large", { inputSchema: { bytes: z.number() } }, async ({ bytes }) => text("x".repeat(bytes)));
  server.registerTool("picture", { inputSchema: empty }, async () => ({
    content: [
      { type: "text", text: "A cat:" },
      { type: "image", data: "AAAA", mimeType: "image/png" },
      { type: "resource_link", uri: "file:///cat.txt", name: "cat" },
    ],
  }));
  server.registerTool("environment", { inputSchema: empty }, async () =>
    text(Object.keys(process.env).sort().join(" ")),
  );
  server.registerTool("secret", { inputSchema: empty }, async () => text(`It is ${process.env.TOKEN}.`));
  server.registerTool("busy", { inputSchema: empty }, async () => {
    busy.now++;
    busy.most = Math.max(busy.most, busy.now);
    await new Promise((resolve) => setTimeout(resolve, 10));
    busy.now--;
    return text(String(busy.most));
  });
  server.registerTool("garbage", { inputSchema: empty }, async () => {
    write("this is no message\n");
    return text("said after garbage");
  });
  server.registerTool("garbage_only", { inputSchema: empty }, async () => {
    write('{"jsonrpc":"2.0","id":\n');
    return await never();
  });
  server.registerTool("wrong", { inputSchema: empty }, async (_, { requestId }) => {
    write(`${JSON.stringify({ jsonrpc: "2.0", id: requestId, result: { content: "no list" } })}\n`);
    return await never();
  });
  // Its caller is killed amid the call, as a machine that fails.
  server.registerTool("kill_caller", { inputSchema: empty }, async () => {
    note("kill_caller");
    process.kill(process.ppid, "SIGKILL");
    return await never();
  });
  server.registerTool("look_up_and_kill", { inputSchema: empty, annotations: { readOnlyHint: true } }, async () => {
    note("look_up_and_kill");
    process.kill(process.ppid, "SIGKILL");
    return await never();
  });
  server.registerTool("grow", { inputSchema: empty }, async () => {
    server.registerTool("grown", { inputSchema: empty }, async () => text("I am new."));
    return text("grown");
  });
  return server;
}

/** A server over HTTP, in this process. */
export interface HttpMcpServer {
  readonly url: string;
  /** Headers of the requests so far. */
  readonly headers: readonly IncomingMessage["headers"][];
  /** Sessions whose end it was told. */
  readonly ended: number;
  /** Requests that are open. */
  readonly open: number;
  /** Forgets its sessions, as a server that was started anew. */
  forget(): void;
  close(): Promise<void>;
}

/** `answers`: as a stream of events, or as one JSON document. `port`: one that was had before. */
export async function startHttpMcpServer({
  answers = "events",
  port = 0,
}: {
  answers?: "events" | "json";
  port?: number;
} = {}): Promise<HttpMcpServer> {
  const sessions = new Map<string, StreamableHTTPServerTransport>();
  const headers: IncomingMessage["headers"][] = [];
  let open = 0;
  let ended = 0;
  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    headers.push(request.headers);
    open++;
    if (request.method === "DELETE") ended++;
    response.on("close", () => open--);
    const sessionId = request.headers["mcp-session-id"];
    let transport = typeof sessionId === "string" ? sessions.get(sessionId) : undefined;
    if (transport === undefined && sessionId !== undefined) {
      response.writeHead(404).end();
      return;
    }
    if (transport === undefined) {
      const made = new StreamableHTTPServerTransport({
        sessionIdGenerator: () => crypto.randomUUID(),
        enableJsonResponse: answers === "json",
        onsessioninitialized: (id) => void sessions.set(id, made),
      });
      // Of many calls on one session the newest may have another response; the one that asks to die is the last.
      const faults: Faults = {
        die: () => server.closeAllConnections(),
        write: () => undefined,
      };
      await createTools(faults).connect(made as Parameters<McpServer["connect"]>[0]);
      transport = made;
    }
    await transport.handleRequest(request, response);
  };
  const server: HttpServer = createServer((request, response) => {
    handle(request, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`,
    headers,
    get ended() {
      return ended;
    },
    get open() {
      return open;
    },
    forget: () => sessions.clear(),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

if (import.meta.main) {
  // With it the file gets a line when the process is told to end.
  if (process.env.MCP_END !== undefined) process.stdin.on("end", () => note("end"));
  await createTools({
    die: () => process.exit(1),
    write: (said) => void process.stdout.write(said),
  }).connect(new StdioServerTransport());
}
