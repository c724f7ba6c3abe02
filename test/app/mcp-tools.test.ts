import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { UNKNOWN_OUTCOME } from "../../src/engine/tool-call.ts";
import { eventually } from "../support/eventually.ts";
import { STDIO_SERVER, startHttpMcpServer } from "../support/mcp-server.ts";
import { startTestApp } from "../support/parley-app.ts";
import { callerOf, errorOf, expectWhole, type Reading, turnIdOf } from "./clients.ts";
import { startParts } from "./parts.ts";

/** An agent that calls each tool that it may, with the user's message as arguments, and its team. */
function userOf(tools: readonly string[], servers: Readonly<Record<string, unknown>>) {
  return JSON.stringify({
    agents: { user: { model: "sim-tools", tools } },
    teams: { user: { agent: "user" } },
    mcp_servers: servers,
  });
}

function toolCalls({ events }: Pick<Reading, "events">) {
  return events.flatMap(({ event }) =>
    event.case === "toolCallCompleted"
      ? [{ tool: event.value.tool, outcome: event.value.outcome, content: event.value.content }]
      : [],
  );
}

test("a process' tool is called in a turn, its result told, counted, and its content nowhere else", async () => {
  const servers = { files: { ...STDIO_SERVER, env: { TOKEN: { from_env: "FILES_TOKEN" } } } };
  const app = await startTestApp({
    yaml: userOf(["files.echo", "files.secret"], servers),
    env: { FILES_TOKEN: "s3cr3t-of-the-server" },
  });
  onTestFinished(() => app.close());
  await eventually(() => expect(app.logs.where({ msg: "tool server reached" })).toHaveLength(1));
  const reading = callerOf(app).stream("", '{"text":"purple elephants"}', "user");
  expect(await reading.end).toBeUndefined();
  expectWhole(reading.events);
  expect(toolCalls(reading)).toEqual([
    { tool: "files.echo", outcome: ToolOutcome.OK, content: "purple elephants" },
    // It takes no arguments.
    { tool: "files.secret", outcome: ToolOutcome.REFUSED, content: expect.stringContaining("do not fit") },
  ]);
  expect(reading.text()).toContain("A tool said: “purple elephants”");
  // The model knows the tools by names that it takes, and as their server describes them.
  const offered = app.simulated.calls[0]?.body.tools as { function: { name: string; description: string } }[];
  expect(offered.map(({ function: { name, description } }) => [name, description])).toEqual([
    ["files__echo", "Says it again."],
    ["files__secret", ""],
  ]);
  const again = callerOf(app).stream("", "{}", "user");
  await again.end;
  expect(toolCalls(again)[1]).toMatchObject({ outcome: ToolOutcome.OK, content: "It is s3cr3t-of-the-server." });
  const metrics = await app.metrics();
  expect(metrics).toMatch(/parley_tool_calls_total\{server="files",tool="echo",outcome="OK",.*\} 1\n/);
  expect(metrics).toMatch(/parley_tool_calls_total\{server="files",tool="secret",outcome="REFUSED",.*\} 1\n/);
  expect(metrics).toMatch(/parley_tool_call_duration_seconds_count\{.*server="files",tool="echo".*\} 2\n/);
  expect(metrics).toMatch(/parley_tool_breaker_state\{server="files",.*\} 0\n/);
  for (const content of ["purple", "s3cr3t"]) expect(app.logs.text() + metrics).not.toContain(content);
});

test("a server over HTTP that is down at the start fails its tool, in words, and is used when it comes", async () => {
  const first = await startHttpMcpServer();
  await first.close();
  const server = { url: first.url, headers: { authorization: { from_env: "AUTHORIZATION" } } };
  const app = await startTestApp({
    yaml: userOf(["search.echo"], { search: server }),
    env: { AUTHORIZATION: "Bearer s3cr3t" },
  });
  onTestFinished(() => app.close());
  const caller = callerOf(app);
  const failed = caller.stream("", '{"text":"one"}', "user");
  expect(await failed.end).toBeUndefined();
  expect(toolCalls(failed)).toEqual([
    {
      tool: "search.echo",
      outcome: ToolOutcome.ERROR,
      content: "The tool's server cannot be reached. The call was not made.",
    },
  ]);
  const http = await startHttpMcpServer({ port: Number(new URL(first.url).port) });
  onTestFinished(() => http.close());
  const works = caller.stream("", '{"text":"two"}', "user");
  await works.end;
  expect(toolCalls(works)).toMatchObject([{ outcome: ToolOutcome.OK, content: "two" }]);
  expect(http.headers[0]).toMatchObject({ authorization: "Bearer s3cr3t" });
  expect(app.logs.text()).not.toContain("s3cr3t");
});

test.each([
  ["is not repeated, and the model is told so", "kill_caller", {}, 1],
  ["that says it only reads is not repeated: it is not trusted", "look_up_and_kill", {}, 1],
  ["that says it only reads, and is trusted, is repeated", "look_up_and_kill", { trust_annotations: true }, 2],
  ["that is declared idempotent is repeated", "kill_caller", { tools: { kill_caller: { idempotent: true } } }, 2],
  [
    "that is declared not to be, whatever it says itself, is not repeated",
    "look_up_and_kill",
    { trust_annotations: true, tools: { look_up_and_kill: { idempotent: false } } },
    1,
  ],
])("a call whose owner is killed amid it %s", async (_, tool, options, times) => {
  const parts = await startParts();
  const folder = await mkdtemp(join(tmpdir(), "parley-mcp-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  const [file, calls] = [join(folder, "parley.yaml"), join(folder, "calls")];
  const servers = { tests: { ...STDIO_SERVER, env: { MCP_CALLS: calls }, ...options } };
  await writeFile(file, userOf([`tests.${tool}`], servers));
  const env = { CONFIG_FILE: file, LEASE_MS: "1000" };
  const owner = await parts.startService(env);
  await eventually(() => expect(owner.logged({ msg: "tool server reached" })).toHaveLength(1));
  const cut = callerOf(owner).stream("", "hello", "user");
  await errorOf(cut);
  expect(await owner.ended).toMatchObject({ signal: "SIGKILL" });
  // One that repeats the call dies of it too.
  const made = async () => (await readFile(calls, "utf8")).trim().split("\n");
  const second = await parts.startService(env, { awaitReady: false });
  if (times === 2) {
    await second.ended;
    expect(await made()).toEqual([tool, tool]);
    return;
  }
  const reading = callerOf(second).resume(turnIdOf(cut));
  expect(await reading.end).toBeUndefined();
  expectWhole(reading.events);
  expect(toolCalls(reading)).toEqual([
    { tool: `tests.${tool}`, outcome: ToolOutcome.UNKNOWN, content: UNKNOWN_OUTCOME },
  ]);
  expect(parts.model.calls.at(-1)?.messages.at(-1)).toMatchObject({ role: "tool", content: UNKNOWN_OUTCOME });
  expect(await made()).toEqual([tool]);
});
