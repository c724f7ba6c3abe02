import { StreamableHTTPError } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { type CallToolResult, ErrorCode, McpError } from "@modelcontextprotocol/sdk/types.js";
import { ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { type ToolCall, ToolFailure } from "../engine/tool.ts";
import { type BreakerOptions, type BreakerState, createOutcomeBreaker } from "../platform/outcome-breaker.ts";
import { createCallSlots } from "./call-slots.ts";
import { type DescribedTool, type McpConnection, openMcpConnection } from "./mcp-connection.ts";
import { resultText } from "./mcp-result.ts";
import type { McpServerDefinition } from "./mcp-servers-yaml.ts";
import { isOversize, STREAM_LOST } from "./mcp-transport.ts";

/** A server of tools, reached or not. It is tried again until it is closed. */
export interface McpServer {
  /** A tool as the server last described it; undefined: it never did. */
  describe(tool: string): DescribedTool | undefined;
  /** Makes a call; resolves with the text of its result. Throws a {@link ToolFailure}, or the signal's reason. */
  call(tool: string, argumentsJson: string, call: ToolCall): Promise<string>;
  close(): Promise<void>;
}

export interface McpServerObserver {
  onBreaker(state: BreakerState): void;
  onConnected(): void;
  /** The server could not be reached, or was lost; told again only after it was reached. */
  onLost(error: unknown): void;
}

/**
 * A server that is not reached is tried again after this many milliseconds, then twice as many, up to the most. One that was
 * there for less than the most counts as not reached: it may be one that ends as soon as it is asked.
 */
const RECONNECT_MS = { first: 500, most: 30_000 } as const;

/** What a server says of an error is cut to this many characters. */
const MAX_ERROR_CHARACTERS = 1_000;

/** Begins to reach a server, in the background. */
export function startMcpServer(
  definition: McpServerDefinition,
  {
    version,
    breaker: breakerOptions,
    observer,
  }: { version: string; breaker: Omit<BreakerOptions, "onState">; observer: McpServerObserver },
): McpServer {
  const slots = createCallSlots(definition.maxConcurrentCalls);
  const breaker = createOutcomeBreaker({ ...breakerOptions, onState: observer.onBreaker });
  let connection: McpConnection | undefined;
  let connecting: Promise<McpConnection> | undefined;
  let described: McpConnection["tools"] = new Map();
  let retry: ReturnType<typeof setTimeout> | undefined;
  let retryMs: number = RECONNECT_MS.first;
  let told = false;
  let reachedMs = Number.NEGATIVE_INFINITY;
  const ending = new AbortController();

  const lose = (error: unknown): void => {
    if (connection !== undefined && performance.now() - reachedMs > RECONNECT_MS.most) retryMs = RECONNECT_MS.first;
    connection = undefined;
    if (ending.signal.aborted) return;
    if (!told) observer.onLost(error);
    told = true;
    clearTimeout(retry);
    retry = setTimeout(() => connect().catch(() => undefined), retryMs);
    retry.unref();
    retryMs = Math.min(retryMs * 2, RECONNECT_MS.most);
  };
  const connect = (): Promise<McpConnection> => {
    connecting ??= openMcpConnection(definition, {
      version,
      signal: ending.signal,
      onLost() {
        if (connection?.lost !== undefined) lose(connection.lost);
      },
    })
      .then(async (opened) => {
        if (ending.signal.aborted) {
          await opened.close();
          throw ending.signal.reason;
        }
        // It may have been lost while its tools were read.
        if (opened.lost !== undefined) throw opened.lost;
        clearTimeout(retry);
        connection = opened;
        reachedMs = performance.now();
        told = false;
        observer.onConnected();
        return opened;
      })
      .catch((error: unknown) => {
        lose(error);
        throw error;
      })
      .finally(() => {
        connecting = undefined;
      });
    return connecting;
  };
  /** Lets go of a connection that is of no more use: the next call has another. */
  const drop = (dropped: McpConnection, error: unknown): void => {
    if (connection !== dropped) return;
    lose(error);
    dropped.close().catch(() => undefined);
  };

  /** One call on a connection. */
  const callOn = async (
    reached: McpConnection,
    { tool, args, signal }: { tool: string; args: Record<string, unknown>; signal: AbortSignal },
  ): Promise<string> => {
    // It may have come since the tools were listed.
    if (!reached.tools.has(tool)) await reached.relist().catch(() => undefined);
    reached.relistIfOld();
    const listed = reached.tools.get(tool);
    if (listed === undefined) throw failed("The tool's server has no such tool. The call was not made.");
    const problem = problemOf(listed, args);
    if (problem !== undefined) {
      throw new ToolFailure(ToolOutcome.REFUSED, `The arguments do not fit: ${problem}. The call was not made.`);
    }
    // The signal is what ends it: the SDK's own timeout comes after.
    const timeout = definition.callTimeoutMs * 2;
    const result = (await reached.client.callTool({ name: tool, arguments: args }, undefined, {
      signal,
      timeout,
    })) as CallToolResult;
    const text = resultText(result);
    if (result.isError === true) throw failed(text === "" ? "The tool failed." : text);
    return text;
  };

  const attempt = async (tool: string, args: Record<string, unknown>, signal: AbortSignal): Promise<string> => {
    const begun = breaker.begin();
    if (begun === undefined) throw failed("The tool's server does not work at the moment. The call was not made.");
    let reached: McpConnection | undefined;
    try {
      reached = connection ?? (await orAborted(connect(), signal));
      const text = await callOn(reached, { tool, args, signal });
      begun.decide("success");
      return text;
    } catch (error) {
      const isLate = isTimeout(signal.reason);
      // A turn that ends says nothing of the server.
      if (signal.aborted && !isLate) throw signal.reason;
      const { failure, isServers, losesConnection } = explain(error, { reached, isLate });
      if (isServers) begun.decide("failure");
      else if (failure.outcome !== ToolOutcome.REFUSED) begun.decide("success");
      if (losesConnection && reached !== undefined) drop(reached, error);
      throw failure;
    } finally {
      begun.end();
    }
  };

  connect().catch(() => undefined);
  return {
    describe(tool) {
      if (connection !== undefined) described = connection.tools;
      return described.get(tool);
    },
    async call(tool, argumentsJson, call) {
      const args = JSON.parse(argumentsJson) as Record<string, unknown>;
      const signal = AbortSignal.any([call.signal, AbortSignal.timeout(definition.callTimeoutMs)]);
      const giveBack = await slots.take(signal).catch((error: unknown) => {
        if (!isTimeout(error)) throw error;
        throw failed("The tool's server has too much to do. The call was not made.", error);
      });
      try {
        return await attempt(tool, args, signal);
      } catch (error) {
        // A server that was started anew knows nothing of its sessions: it has not made the call either.
        if (!isForgottenSession(error)) throw error;
        return await attempt(tool, args, signal);
      } finally {
        giveBack();
      }
    },
    async close() {
      ending.abort();
      clearTimeout(retry);
      breaker.close();
      await connection?.close();
      await connecting?.catch(() => undefined);
    },
  };
}

/** Why a call did not end well: in words for the model, and whether it speaks against the server. */
function explain(
  error: unknown,
  { reached, isLate }: { reached: McpConnection | undefined; isLate: boolean },
): { failure: ToolFailure; isServers: boolean; losesConnection: boolean } {
  if (error instanceof ToolFailure) return { failure: error, isServers: false, losesConnection: false };
  const servers = (told: string, losesConnection = false) => {
    return { failure: failed(told, error), isServers: true, losesConnection };
  };
  if (reached === undefined) return servers("The tool's server cannot be reached. The call was not made.");
  if (isLate) return servers("The tool did not answer in time; it may have taken effect.");
  const isServersWord = error instanceof McpError && error.code !== STREAM_LOST;
  if ((!isServersWord && isOversize(error)) || isOversize(reached.lost))
    return servers("The tool's answer is too long to be read; it may have taken effect.");
  if (reached.lost !== undefined)
    return servers("The tool's server was lost amid the call, which may have taken effect.");
  if (error instanceof McpError) {
    if (error.code === STREAM_LOST)
      return servers("The tool's server was lost amid the call, which may have taken effect.");
    // What the SDK finds wrong with a result has the same codes as what a server says; both are words about the call.
    const said = error.message.replace(/^MCP error -?\d+: /, "").slice(0, MAX_ERROR_CHARACTERS);
    const isUsers = error.code !== ErrorCode.InternalError && error.code !== ErrorCode.ParseError;
    return {
      failure: failed(`The tool answered with an error: ${said}`, error),
      isServers: !isUsers,
      losesConnection: false,
    };
  }
  if (error instanceof StreamableHTTPError) {
    return servers(`The tool's server refused the call (HTTP status ${error.code ?? "unknown"}).`, error.code === 404);
  }
  // Nothing came back that could be an answer, or nothing at all.
  return servers(
    "The tool's server gave no answer that can be read; the call may have taken effect.",
    error instanceof TypeError,
  );
}

function isForgottenSession(error: unknown): boolean {
  return error instanceof ToolFailure && error.cause instanceof StreamableHTTPError && error.cause.code === 404;
}

function isTimeout(error: unknown): boolean {
  return error instanceof DOMException && error.name === "TimeoutError";
}

function problemOf(tool: DescribedTool, args: unknown): string | undefined {
  try {
    return tool.problemOf(args)?.slice(0, MAX_ERROR_CHARACTERS);
  } catch (error) {
    throw failed("The tool's description is no JSON Schema. The call was not made.", error);
  }
}

function failed(told: string, cause?: unknown): ToolFailure {
  return new ToolFailure(ToolOutcome.ERROR, told, { cause });
}

function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const abort = (): void => aborted.reject(signal.reason);
  if (signal.aborted) abort();
  signal.addEventListener("abort", abort, { once: true });
  return Promise.race([promise, aborted.promise]).finally(() => signal.removeEventListener("abort", abort));
}
