import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { ToolFailure } from "../../src/engine/tool.ts";
import type { BreakerState } from "../../src/platform/outcome-breaker.ts";
import { type McpServer, startMcpServer } from "../../src/tools/mcp-server.ts";
import type { McpServerDefinition } from "../../src/tools/mcp-servers-yaml.ts";
import { STDIO_SERVER } from "../support/mcp-server.ts";

/** A way to the tests' server over standard input and output, and the calls that came to it. */
export function stdioServer(env: Readonly<Record<string, string>> = {}) {
  const folder = mkdtempSync(join(tmpdir(), "parley-mcp-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const file = join(folder, "calls");
  const transport = { kind: "stdio", ...STDIO_SERVER, env: { ...env, MCP_CALLS: file } } as const;
  return {
    transport,
    calls(): string[] {
      try {
        return readFileSync(file, "utf8").trim().split("\n");
      } catch {
        return [];
      }
    },
  };
}

/** A server as the service has it, gone when the test has ended. */
export function serverOf(
  transport: McpServerDefinition["transport"],
  {
    breaker = {},
    ...options
  }: Partial<McpServerDefinition> & { breaker?: { minCalls?: number; resetMs?: number } } = {},
) {
  const states: BreakerState[] = [];
  const told: string[] = [];
  const server = startMcpServer(
    {
      name: "tests",
      transport,
      connectTimeoutMs: 20_000,
      callTimeoutMs: 20_000,
      maxConcurrentCalls: 8,
      maxResultBytes: 1_048_576,
      tools: new Map(),
      trustAnnotations: false,
      ...options,
    },
    {
      version: "0.0.0-test",
      breaker: { windowMs: 60_000, minCalls: 1_000, errorThresholdPercent: 50, resetMs: 60_000, ...breaker },
      observer: {
        onBreaker: (state) => void states.push(state),
        onConnected: () => void told.push("reached"),
        onLost: () => void told.push("lost"),
      },
    },
  );
  onTestFinished(() => server.close());
  return { server, states, told };
}

/** What a call comes to: a text, or how it failed and what the model is told. */
export async function outcomeOf(
  server: McpServer,
  tool: string,
  args: unknown = {},
  signal: AbortSignal = new AbortController().signal,
): Promise<string | { outcome: number; told: string }> {
  try {
    return await server.call(tool, JSON.stringify(args), { id: "t/1/1", signal });
  } catch (error) {
    if (!(error instanceof ToolFailure)) throw error;
    return { outcome: error.outcome, told: error.told };
  }
}
