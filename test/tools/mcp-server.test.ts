import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import type { McpServerDefinition } from "../../src/tools/mcp-servers-yaml.ts";
import { eventually } from "../support/eventually.ts";
import { startHttpMcpServer } from "../support/mcp-server.ts";
import { outcomeOf, serverOf, stdioServer } from "./tool-server.ts";

const { ERROR, REFUSED } = ToolOutcome;

/** The same server by each way that there is. */
const ways: Readonly<Record<string, () => Promise<McpServerDefinition["transport"]>>> = {
  stdio: async () => stdioServer().transport,
  "HTTP with streams of events": () => httpServer("events"),
  "HTTP with JSON": () => httpServer("json"),
};

async function httpServer(answers: "events" | "json"): Promise<McpServerDefinition["transport"]> {
  const server = await startHttpMcpServer({ answers });
  onTestFinished(() => server.close());
  return { kind: "http", url: server.url, headers: {} };
}

describe.each(Object.entries(ways))("over %s", (_, way) => {
  test("a tool gets its arguments, and says what it says", async () => {
    const { server, told } = serverOf(await way());
    expect(await outcomeOf(server, "echo", { text: "Grüße" })).toBe("Grüße");
    expect(await outcomeOf(server, "add", { a: 2, b: 3 })).toBe("5");
    expect(await outcomeOf(server, "picture")).toBe(
      "A cat:\n[image, image/png: not shown]\n[resource file:///cat.txt]",
    );
    expect(server.describe("echo")).toMatchObject({
      description: "Says it again.",
      inputSchema: { properties: { text: { type: "string" } }, required: ["text"] },
    });
    expect(told).toEqual(["reached"]);
  });

  test("what a tool says of its failure is told", async () => {
    const { server } = serverOf(await way());
    expect(await outcomeOf(server, "refuse")).toEqual({ outcome: ERROR, told: "Not on a Sunday." });
  });

  test("arguments that do not fit the tool's schema are refused without a call, and it is told why", async () => {
    const { server } = serverOf(await way());
    expect(await outcomeOf(server, "echo", { text: 5 })).toEqual({
      outcome: REFUSED,
      told: "The arguments do not fit: data/text must be string. The call was not made.",
    });
    expect(await outcomeOf(server, "add", {})).toMatchObject({
      outcome: REFUSED,
      told: expect.stringContaining("must have required property 'a', data must have required property 'b'"),
    });
  });

  test("a tool that the server does not have is not called", async () => {
    const { server } = serverOf(await way());
    expect(await outcomeOf(server, "fly")).toMatchObject({
      outcome: ERROR,
      told: expect.stringContaining("no such tool"),
    });
  });

  test("a tool that hangs is given up after the server's time, and one that works goes on", async () => {
    const { server } = serverOf(await way(), { callTimeoutMs: 1_500 });
    await outcomeOf(server, "echo", { text: "warm" });
    const [hung, other] = await Promise.all([outcomeOf(server, "hang"), outcomeOf(server, "echo", { text: "on" })]);
    expect(hung).toEqual({ outcome: ERROR, told: "The tool did not answer in time; it may have taken effect." });
    expect(other).toBe("on");
  });

  test("a server that is lost amid a call fails the call at once, and is reached again for the next", async () => {
    const { server } = serverOf(await way());
    expect(await outcomeOf(server, "die")).toEqual({
      outcome: ERROR,
      told: expect.stringMatching(/lost amid the call|no answer that can be read/),
    });
    expect(await outcomeOf(server, "echo", { text: "again" })).toBe("again");
  });

  test("a result that is too long is not read, and the server is of use after it", async () => {
    const { server } = serverOf(await way(), { maxResultBytes: 200_000 });
    expect(await outcomeOf(server, "large", { bytes: 50_000_000 })).toEqual({
      outcome: ERROR,
      told: "The tool's answer is too long to be read; it may have taken effect.",
    });
    expect(await outcomeOf(server, "large", { bytes: 200_000 })).toHaveLength(200_000);
  });

  test("a hundred calls at once: no more than the bound at a time, and all of them end", async () => {
    const { server } = serverOf(await way(), { maxConcurrentCalls: 7 });
    const results = await Promise.all(Array.from({ length: 100 }, () => outcomeOf(server, "busy")));
    const most = results.map(Number);
    expect(Math.max(...most)).toBeLessThanOrEqual(7);
    expect(Math.max(...most)).toBeGreaterThan(1);
  });

  test("the end of a turn ends its call, whoever waits for a slot too", async () => {
    const { server } = serverOf(await way(), { maxConcurrentCalls: 1 });
    await outcomeOf(server, "echo", { text: "warm" });
    const stop = new AbortController();
    const calls = [outcomeOf(server, "hang", {}, stop.signal), outcomeOf(server, "echo", { text: "x" }, stop.signal)];
    stop.abort(new Error("stopped"));
    expect((await Promise.allSettled(calls)).map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    expect(await outcomeOf(server, "echo", { text: "free" })).toBe("free");
  });
});

test("a process is told of a call that was given up", async () => {
  const { transport, calls } = stdioServer();
  const { server } = serverOf(transport, { callTimeoutMs: 1_500 });
  await outcomeOf(server, "hang");
  await eventually(() => expect(calls()).toEqual(["hang", "hang was cancelled"]));
});

test("a request over HTTP that was given up is not left open", async () => {
  const http = await startHttpMcpServer();
  onTestFinished(() => http.close());
  const { server } = serverOf({ kind: "http", url: http.url, headers: {} }, { callTimeoutMs: 1_000 });
  await outcomeOf(server, "hang");
  await eventually(() => expect(http.open).toBe(0));
});

test("a process gets the variables that it is given, and none of Parley's", async () => {
  process.env.OPENAI_API_KEY_FOR_TESTS = "secret";
  onTestFinished(() => void delete process.env.OPENAI_API_KEY_FOR_TESTS);
  const { server } = serverOf(stdioServer({ TOKEN: "t" }).transport);
  const names = String(await outcomeOf(server, "environment")).split(" ");
  expect(names).toContain("TOKEN");
  expect(names).not.toContain("OPENAI_API_KEY_FOR_TESTS");
});

test("headers go with every request", async () => {
  const http = await startHttpMcpServer();
  onTestFinished(() => http.close());
  const { server } = serverOf({ kind: "http", url: http.url, headers: { authorization: "Bearer abc" } });
  await outcomeOf(server, "echo", { text: "x" });
  expect(http.headers.length).toBeGreaterThan(2);
  expect(new Set(http.headers.map(({ authorization }) => authorization))).toEqual(new Set(["Bearer abc"]));
});

test("a server over HTTP that has forgotten its sessions is asked again, in another", async () => {
  const http = await startHttpMcpServer();
  onTestFinished(() => http.close());
  const { server } = serverOf({ kind: "http", url: http.url, headers: {} });
  await outcomeOf(server, "echo", { text: "x" });
  http.forget();
  expect(await outcomeOf(server, "echo", { text: "y" })).toBe("y");
});

test("a server over HTTP is told that its session ends", async () => {
  const http = await startHttpMcpServer();
  onTestFinished(() => http.close());
  const { server } = serverOf({ kind: "http", url: http.url, headers: {} });
  await outcomeOf(server, "echo", { text: "x" });
  expect(http.ended).toBe(0);
  await server.close();
  expect(http.ended).toBe(1);
});

test("closing does not wait for a server that is still to be reached", async () => {
  const silent = createServer(() => undefined);
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void silent.close().closeAllConnections());
  const asked = once(silent, "request");
  const url = `http://127.0.0.1:${(silent.address() as AddressInfo).port}/mcp`;
  const { server } = serverOf({ kind: "http", url, headers: {} }, { connectTimeoutMs: 600_000 });
  await asked;
  await server.close();
});

test("a tool that a server over HTTP has got since is found when it is called", async () => {
  const http = await startHttpMcpServer({ answers: "json" });
  onTestFinished(() => http.close());
  const { server } = serverOf({ kind: "http", url: http.url, headers: {} });
  await outcomeOf(server, "grow");
  expect(await outcomeOf(server, "grown")).toBe("I am new.");
});

describe("a server that is not there", () => {
  test.each([
    ["no program", { kind: "stdio", command: "/no/such/program", args: [], env: {} } as const],
    ["a program that ends", { kind: "stdio", command: process.execPath, args: ["-e", "0"], env: {} } as const],
    ["nobody listens", { kind: "http", url: "http://127.0.0.1:1/mcp", headers: {} } as const],
  ])("%s: the call fails with a sentence", async (_, transport) => {
    const { server, told } = serverOf(transport);
    expect(await outcomeOf(server, "echo", { text: "x" })).toEqual({
      outcome: ERROR,
      told: "The tool's server cannot be reached. The call was not made.",
    });
    expect(told).toEqual(["lost"]);
  });

  test("it is used when it comes", async () => {
    const first = await startHttpMcpServer();
    const port = Number(new URL(first.url).port);
    await first.close();
    const { server, told } = serverOf({ kind: "http", url: first.url, headers: {} });
    await eventually(() => expect(told).toEqual(["lost"]));
    const http = await startHttpMcpServer({ port });
    onTestFinished(() => http.close());
    await eventually(() => expect(told).toEqual(["lost", "reached"]));
    expect(await outcomeOf(server, "echo", { text: "x" })).toBe("x");
  });
});

describe("what is no answer", () => {
  test("text that is no message is passed over", async () => {
    const { server } = serverOf(stdioServer().transport);
    expect(await outcomeOf(server, "garbage")).toBe("said after garbage");
  });

  test("a result of another shape fails the call", async () => {
    const { server } = serverOf(stdioServer().transport);
    expect(await outcomeOf(server, "wrong")).toEqual({
      outcome: ERROR,
      told: "The tool's server gave no answer that can be read; the call may have taken effect.",
    });
    expect(await outcomeOf(server, "echo", { text: "x" })).toBe("x");
  });
});

test("a breaker that opens keeps calls from a server that fails, and lets one try later", async () => {
  const { server, states } = serverOf(stdioServer().transport, {
    callTimeoutMs: 1_500,
    breaker: { minCalls: 2, resetMs: 200 },
  });
  await outcomeOf(server, "hang");
  await outcomeOf(server, "hang");
  expect(states).toEqual(["closed", "open"]);
  expect(await outcomeOf(server, "echo", { text: "x" })).toEqual({
    outcome: ERROR,
    told: "The tool's server does not work at the moment. The call was not made.",
  });
  await eventually(() => expect(states).toEqual(["closed", "open", "half_open"]));
  expect(await outcomeOf(server, "echo", { text: "x" })).toBe("x");
  expect(states).toEqual(["closed", "open", "half_open", "closed"]);
});

test("what a tool refuses, and a turn that ends, do not open the breaker", async () => {
  const { server, states } = serverOf(stdioServer().transport, { breaker: { minCalls: 1 } });
  await outcomeOf(server, "refuse");
  await outcomeOf(server, "echo", { text: 5 });
  await outcomeOf(server, "fly");
  await outcomeOf(server, "hang", {}, AbortSignal.abort()).catch(() => undefined);
  expect(states).toEqual(["closed"]);
});

test("a tool that comes later is known", async () => {
  const { server } = serverOf(stdioServer().transport);
  await outcomeOf(server, "grow");
  await eventually(() => expect(server.describe("grown")).toBeDefined());
  expect(await outcomeOf(server, "grown")).toBe("I am new.");
});

describe("what a server says of its tools", () => {
  /** A server, without the SDK's help, of tools that each say their arguments again. */
  function describing(tools: readonly object[]) {
    const program = `
      const say = (message) => process.stdout.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\\n");
      require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
        const { id, method, params } = JSON.parse(line);
        const said = {
          initialize: () => ({ protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo: { name: "odd", version: "1" } }),
          "tools/list": () => ({ tools: JSON.parse(process.env.TOOLS) }),
          "tools/call": () => ({ content: [{ type: "text", text: params.name }], structuredContent: params.arguments }),
        }[method];
        if (said) say({ id, result: said() });
      });`;
    const env = { TOOLS: JSON.stringify(tools) };
    return serverOf({ kind: "stdio", command: process.execPath, args: ["-e", program], env }).server;
  }

  const object = (text: object) => ({ type: "object", properties: { text } });

  test("a result's schema that is none costs neither the tool nor the others", async () => {
    const outputSchema = object({ type: "nonsense" });
    const server = describing([
      { name: "odd", inputSchema: { type: "object" }, outputSchema },
      { name: "even", inputSchema: { type: "object" } },
    ]);
    expect(await outcomeOf(server, "even")).toBe("even");
    expect(await outcomeOf(server, "odd", { text: "x" })).toBe("odd");
  });

  test("its patterns hold nobody up, of arguments and of results, and hold where RE2 knows them", async () => {
    const evil = object({ type: "string", pattern: "^(a+)+$" });
    const server = describing([
      { name: "told", inputSchema: evil },
      { name: "says", inputSchema: { type: "object" }, outputSchema: evil },
      { name: "looks_ahead", inputSchema: object({ type: "string", pattern: "^(?=.*b)(a+)+$" }) },
    ]);
    // A backtracking engine takes minutes, and the test has but its deadline.
    const text = `${"a".repeat(31)}!`;
    const refused = { outcome: REFUSED, told: expect.stringContaining("must match pattern") };
    expect(await outcomeOf(server, "told", { text })).toEqual(refused);
    expect(await outcomeOf(server, "told", { text: "aa" })).toBe("told");
    expect(await outcomeOf(server, "says", { text })).toMatchObject({ outcome: ERROR });
    expect(await outcomeOf(server, "looks_ahead", { text })).toBe("looks_ahead");
  });
});
