import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code, ConnectError } from "@connectrpc/connect";
import { expect, onTestFinished, test } from "vitest";
import { ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { startSimulatedModel } from "../../src/providers/simulated-model.ts";
import { STDIO_SERVER } from "../support/mcp-server.ts";
import { startTestApp } from "../support/parley-app.ts";
import { type Caller, callerOf, casesOf, expectWhole, type Reading, USER } from "./clients.ts";
import { startParts } from "./parts.ts";

const CALL = '{"text":"purple"}';

/** A parley.yaml whose agents call tools that a person approves, and the file that has a line for each call that was made. */
async function withApprovals() {
  const folder = await mkdtemp(join(tmpdir(), "parley-approval-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const calls = join(folder, "calls");
  const server = (name: string) => ({
    ...STDIO_SERVER,
    env: { MCP_CALLS: calls, NAME: name },
    tools: { echo: { approval: "required" } },
  });
  const agents = {
    one: { model: "sim-tools", tools: ["a.echo"] },
    two: { model: "sim-tools", tools: ["a.echo", "b.echo"] },
    plain: { model: "gpt-4o" },
    closer: { model: "sim-terminate" },
  };
  const teams = {
    plain: { agent: "plain" },
    one: { agent: "one" },
    two: { agent: "two" },
    forgetful: { agent: "one", history_messages: 0 },
    round: { kind: "round_robin", agents: ["plain", "one", "closer"] },
  };
  const yaml = JSON.stringify({
    agents,
    teams,
    default_team: "plain",
    mcp_servers: { a: server("a"), b: server("b") },
  });
  return {
    yaml,
    file: join(folder, "parley.yaml"),
    made: async () => (await readFile(calls, "utf8").catch(() => "")).split("\n").slice(0, -1),
  };
}

function sessionOf({ events }: Reading): string {
  const [started] = events;
  return started?.event.case === "turnStarted" ? started.event.value.sessionId : "";
}

/** Ids of what a turn asks for. */
function askedBy({ events }: Reading): string[] {
  return events.flatMap(({ event }) => (event.case === "approvalRequired" ? [event.value.toolCallId] : []));
}

function completedIn({ events }: Reading) {
  return events.flatMap(({ event }) =>
    event.case === "toolCallCompleted" ? [[event.value.toolCallId, event.value.outcome, event.value.content]] : [],
  );
}

function finishOf({ events }: Reading): FinishReason | undefined {
  const last = events.at(-1)?.event;
  return last?.case === "turnCompleted" ? last.value.finishReason : undefined;
}

/** Runs a turn to its end. */
async function said(caller: Caller, sessionId: string, message: string, agentTeam: string): Promise<Reading> {
  const reading = caller.stream(sessionId, message, agentTeam);
  expect(await reading.end).toBeUndefined();
  expectWhole(reading.events);
  return reading;
}

type Answer = { toolCallId: string; approved: boolean; comment?: string };

async function answered(caller: Caller, sessionId: string, approvals: Answer[], fields = {}): Promise<Reading> {
  const reading = caller.stream(sessionId, "", "", { approvals, ...fields });
  expect(await reading.end).toBeUndefined();
  expectWhole(reading.events);
  return reading;
}

test("a call waits for its approval, is made when it has it, and the team goes on", async () => {
  const { yaml, made } = await withApprovals();
  const app = await startTestApp({ yaml });
  onTestFinished(() => app.close());
  const caller = callerOf(app);
  const asking = await said(caller, "", CALL, "one");
  const sessionId = sessionOf(asking);
  expect(casesOf(asking.events)).toEqual([
    "turnStarted",
    "agentStarted",
    "usageRecorded",
    "approvalRequired",
    "turnCompleted",
  ]);
  expect(finishOf(asking)).toBe(FinishReason.INPUT_REQUIRED);
  expect(await made()).toEqual([]);
  const [id = ""] = askedBy(asking);

  const going = await answered(caller, sessionId, [{ toolCallId: id, approved: true }]);
  expect(casesOf(going.events)).toEqual([
    "turnStarted",
    "agentStarted",
    "toolCallStarted",
    "toolCallCompleted",
    "textDelta",
    "messageCompleted",
    "usageRecorded",
    "turnCompleted",
  ]);
  expect(going.events[0]?.event.value).toMatchObject({ agentTeam: "one", sessionId });
  expect(completedIn(going)).toEqual([[id, ToolOutcome.OK, "purple"]]);
  expect(finishOf(going)).toBe(FinishReason.STOP);
  expect(await made()).toEqual(["echo purple"]);
  // The model was asked once in each turn, and in the second was shown its own call and the result, nothing twice.
  expect(app.simulated.callCount).toBe(2);
  expect(app.simulated.calls[1]?.messages.map(({ role, content }) => [role, content])).toEqual([
    ["system", expect.any(String)],
    ["user", CALL],
    ["assistant", ""],
    ["tool", "purple"],
  ]);
  expect(await caller.history(sessionId)).toEqual([CALL, "Approved.", going.text()]);

  // It is over: the same approval is not asked for any more, and the session goes on.
  const again = caller.stream(sessionId, "", "", { approvals: [{ toolCallId: id, approved: true }] });
  expect(await again.end).toMatchObject({ code: Code.FailedPrecondition });
  expect((await said(caller, sessionId, "hello", "plain")).text()).toContain("hello");
  expect(await made()).toEqual(["echo purple"]);
});

test("an approval that comes twice does not approve the call that is asked for next, though the model numbers both alike", async () => {
  const { yaml, made } = await withApprovals();
  const app = await startTestApp({ yaml });
  onTestFinished(() => app.close());
  const caller = callerOf(app);
  const asking = await said(caller, "", CALL, "forgetful");
  const sessionId = sessionOf(asking);
  const approvals = [{ toolCallId: askedBy(asking)[0] ?? "", approved: true }];
  await answered(caller, sessionId, approvals);
  const next = await said(caller, sessionId, '{"text":"green"}', "forgetful");
  expect(app.simulated.calls[2]?.messages.map(({ role }) => role)).toEqual(["system", "user"]);
  const late = caller.stream(sessionId, "", "", { approvals });
  expect(await late.end).toMatchObject({ code: Code.FailedPrecondition });
  expect(await made()).toEqual(["echo purple"]);
  await answered(caller, sessionId, [{ toolCallId: askedBy(next)[0] ?? "", approved: true }]);
  expect(await made()).toEqual(["echo purple", "echo green"]);
});

test("a call that is not approved is not made, and the model is told why", async () => {
  const { yaml, made } = await withApprovals();
  const app = await startTestApp({ yaml });
  onTestFinished(() => app.close());
  const caller = callerOf(app);
  const asking = await said(caller, "", CALL, "one");
  const [id = ""] = askedBy(asking);
  const going = await answered(caller, sessionOf(asking), [{ toolCallId: id, approved: false, comment: "Too loud." }]);
  const told = "The user did not approve the call. It was not made. The user said: Too loud.";
  expect(completedIn(going)).toEqual([[id, ToolOutcome.REFUSED, told]]);
  expect(app.simulated.calls.at(-1)?.messages.at(-1)).toMatchObject({ role: "tool", content: told });
  expect(await made()).toEqual([]);
});

test("a message in the place of approvals leaves them not approved, and the model is told the message", async () => {
  const { yaml, made } = await withApprovals();
  const app = await startTestApp({ yaml });
  onTestFinished(() => app.close());
  const caller = callerOf(app);
  const asking = await said(caller, "", CALL, "two");
  expect(askedBy(asking)).toHaveLength(2);
  const going = await said(caller, sessionOf(asking), "What for?", "two");
  expect(completedIn(going).map(([, outcome, content]) => [outcome, String(content).includes("What for?")])).toEqual([
    [ToolOutcome.REFUSED, true],
    [ToolOutcome.REFUSED, true],
  ]);
  expect(await made()).toEqual([]);
  expect(finishOf(going)).toBe(FinishReason.STOP);
});

test("a message to another team makes the question void", async () => {
  const { yaml, made } = await withApprovals();
  const app = await startTestApp({ yaml });
  onTestFinished(() => app.close());
  const caller = callerOf(app);
  const asking = await said(caller, "", CALL, "one");
  await said(caller, sessionOf(asking), "hello", "plain");
  const late = caller.stream(sessionOf(asking), "", "", {
    approvals: [{ toolCallId: askedBy(asking)[0] ?? "", approved: true }],
  });
  expect(await late.end).toMatchObject({ code: Code.FailedPrecondition });
  expect(await made()).toEqual([]);
});

test("calls that are left out are asked for again, and none is made twice", async () => {
  const { yaml, made } = await withApprovals();
  const app = await startTestApp({ yaml });
  onTestFinished(() => app.close());
  const caller = callerOf(app);
  const asking = await said(caller, "", CALL, "two");
  const sessionId = sessionOf(asking);
  const [first = "", second = ""] = askedBy(asking);
  // The later one first: the order is the model's all the same.
  const waiting = await answered(caller, sessionId, [{ toolCallId: second, approved: true }]);
  expect([finishOf(waiting), askedBy(waiting), await made()]).toEqual([FinishReason.INPUT_REQUIRED, [first], []]);
  const going = await answered(caller, sessionId, [{ toolCallId: first, approved: true }]);
  expect(completedIn(going).map(([id]) => id)).toEqual([first, second]);
  expect(await made()).toEqual(["echo purple", "echo purple"]);

  const again = await said(caller, "", CALL, "two");
  const [one = "", other = ""] = askedBy(again);
  const half = await answered(caller, sessionOf(again), [{ toolCallId: one, approved: true }]);
  expect([completedIn(half).map(([id]) => id), askedBy(half)]).toEqual([[one], [other]]);
  const rest = await answered(caller, sessionOf(again), [{ toolCallId: other, approved: false }]);
  expect(completedIn(rest).map(([id, outcome]) => [id, outcome])).toEqual([[other, ToolOutcome.REFUSED]]);
  expect(app.simulated.calls.at(-1)?.messages.filter(({ role }) => role === "tool")).toHaveLength(2);
  expect(await made()).toHaveLength(3);
});

test.each(["round", "forgetful"])(
  "a team of several goes on where it stopped, and so does one that reads no history (%s)",
  async (team) => {
    const { yaml, made } = await withApprovals();
    const app = await startTestApp({ yaml });
    onTestFinished(() => app.close());
    const caller = callerOf(app);
    const asking = await said(caller, "", CALL, team);
    const [id = ""] = askedBy(asking);
    const before = app.simulated.callCount;
    const going = await answered(caller, sessionOf(asking), [{ toolCallId: id, approved: true }]);
    expect(await made()).toEqual(["echo purple"]);
    const speakers = going.events.flatMap(({ event }) =>
      event.case === "messageCompleted" ? [event.value.agent] : [],
    );
    expect(speakers).toEqual(team === "round" ? ["one", "closer"] : ["one"]);
    expect(app.simulated.callCount - before).toBe(speakers.length);
  },
);

test("requests with approvals are checked", async () => {
  const { yaml } = await withApprovals();
  const app = await startTestApp({ yaml });
  onTestFinished(() => app.close());
  const { chat } = callerOf(app);
  const refused = (fields: object) => chat.chat({ userId: USER, message: "", ...fields }).catch(ConnectError.from);
  const one = { toolCallId: "a", approved: true };
  for (const fields of [
    { approvals: [one] },
    { sessionId: "s", approvals: [] },
    { sessionId: "s", approvals: [one, one] },
    { sessionId: "s", approvals: [{ approved: true }] },
    { sessionId: "s", approvals: [{ ...one, comment: "\u0000" }] },
    { sessionId: "s", approvals: Array.from({ length: 129 }, (_, index) => ({ toolCallId: `c${index}` })) },
  ]) {
    expect(await refused(fields), JSON.stringify(fields)).toMatchObject({ code: Code.InvalidArgument });
  }
  expect(await refused({ sessionId: "s", approvals: [one] })).toMatchObject({ code: Code.NotFound });
});

test("the same request is the same turn: an approval that is sent twice makes one call", async () => {
  const { yaml, made } = await withApprovals();
  const app = await startTestApp({ yaml });
  onTestFinished(() => app.close());
  const caller = callerOf(app);
  const asking = await said(caller, "", CALL, "one");
  const [id = ""] = askedBy(asking);
  const send = () => answered(caller, sessionOf(asking), [{ toolCallId: id, approved: true }], { idempotencyKey: "k" });
  const [first, second] = [await send(), await send()];
  expect(second.events).toEqual(first.events);
  expect(await made()).toEqual(["echo purple"]);
});

test("a turn that fails after its call leaves the question open, and its call is not made again", async () => {
  const { yaml, made } = await withApprovals();
  const later = await startSimulatedModel({ chunkDelayMs: 0 });
  const port = Number(new URL(later.baseUrl).port);
  await later.close();
  const file = JSON.parse(yaml) as { agents: object; teams: object };
  const failing = JSON.stringify({
    ...file,
    agents: { ...file.agents, last: { model: "gpt-4o-mini" } },
    teams: { ...file.teams, fails: { kind: "round_robin", agents: ["two", "last"], max_consecutive_auto_reply: 1 } },
    models: { "gpt-4o-mini": { endpoints: [{ base_url: later.baseUrl }] } },
  });
  const app = await startTestApp({ yaml: failing });
  onTestFinished(() => app.close());
  const caller = callerOf(app);
  const asking = await said(caller, "", CALL, "fails");
  const sessionId = sessionOf(asking);
  const [one = "", other = ""] = askedBy(asking);
  const approvals = [
    { toolCallId: one, approved: true },
    { toolCallId: other, approved: false, comment: "Not this." },
  ];
  const failed = caller.stream(sessionId, "", "", { approvals });
  expect(await failed.end).toMatchObject({ code: Code.Aborted });
  expect(finishOf(failed)).toBe(FinishReason.ERROR);
  expect(completedIn(failed).map(([, outcome]) => outcome)).toEqual([ToolOutcome.OK, ToolOutcome.REFUSED]);
  expect(await caller.history(sessionId)).toEqual([CALL, "Approved.\nNot approved. Not this.", failed.text()]);
  const calls = app.simulated.callCount;

  const back = await startSimulatedModel({ port, chunkDelayMs: 0 });
  onTestFinished(() => back.close());
  // What was answered stands: a call was made by it.
  const turned = approvals.map(({ toolCallId }) => ({ toolCallId, approved: toolCallId === other }));
  const going = await answered(caller, sessionId, turned);
  expect(casesOf(going.events)).toEqual([
    "turnStarted",
    "agentStarted",
    "textDelta",
    "messageCompleted",
    "usageRecorded",
    "turnCompleted",
  ]);
  expect(going.events[1]?.event.value).toMatchObject({ agent: "last" });
  expect([await made(), app.simulated.callCount]).toEqual([["echo purple"], calls]);
  // It was told all that was said, once.
  const told = back.calls.at(-1)?.messages.map(({ content }) => content) ?? [];
  expect(told.filter((content) => content === CALL)).toHaveLength(1);
  expect(told.join()).toContain("purple");
  expect(told.join()).not.toContain("Approved.");
});

test.each([
  ["a message begins anew where nothing is left to answer", true],
  ["what was answered, and nothing was done by, is asked for again", false],
])("after a turn that failed %s", async (_, approved) => {
  const { yaml, made } = await withApprovals();
  const later = await startSimulatedModel({ chunkDelayMs: 0 });
  await later.close();
  const file = JSON.parse(yaml) as { agents: object; teams: object };
  const failing = JSON.stringify({
    ...file,
    agents: { ...file.agents, one: { model: "sim-tools", tools: ["a.echo"] }, last: { model: "gpt-4o-mini" } },
    teams: { fails: { kind: "round_robin", agents: ["one", "last"] }, plain: { agent: "plain" } },
    models: { "gpt-4o-mini": { endpoints: [{ base_url: later.baseUrl }] } },
  });
  const app = await startTestApp({ yaml: failing });
  onTestFinished(() => app.close());
  const caller = callerOf(app);
  const asking = await said(caller, "", CALL, "fails");
  const sessionId = sessionOf(asking);
  const [id = ""] = askedBy(asking);
  const approvals = [{ toolCallId: id, approved }];
  await caller.stream(sessionId, "", "", { approvals }).end;
  expect(await made()).toEqual(approved ? ["echo purple"] : []);
  const message = caller.stream(sessionId, "hello", "fails");
  await message.end;
  const prompts = app.simulated.calls.at(-1)?.messages.map(({ content }) => content);
  expect(prompts).toContain("hello");
  expect(await made()).toEqual(approved ? ["echo purple"] : []);
});

test("the question outlives all processes, and a turn that goes on outlives its owner", async () => {
  const parts = await startParts();
  const { yaml, file, made } = await withApprovals();
  await writeFile(file, yaml);
  const env = { CONFIG_FILE: file, LEASE_MS: "1000" };
  const first = await parts.startService(env);
  const asking = await said(callerOf(first), "", CALL, "round");
  const [id = ""] = askedBy(asking);
  await first.stop();

  // Killed amid the turn that goes on, after its tool call.
  const second = await parts.startReplica({ ...env, DIE_AT: "after tool 1" });
  const cut = callerOf(second).stream(sessionOf(asking), "", "", { approvals: [{ toolCallId: id, approved: true }] });
  await cut.end;
  expect(await second.ended).toMatchObject({ signal: "SIGKILL" });
  const third = await parts.startService(env);
  const turnId = cut.events[0]?.event.case === "turnStarted" ? cut.events[0].event.value.turnId : "";
  const going = callerOf(third).resume(turnId);
  expect(await going.end).toBeUndefined();
  expectWhole(going.events);
  expect(completedIn(going)).toEqual([[id, ToolOutcome.OK, "purple"]]);
  expect(finishOf(going)).toBe(FinishReason.TERMINATED);
  expect(await made()).toEqual(["echo purple"]);
  const history = await callerOf(third).history(sessionOf(asking));
  const messages = [...asking.events, ...going.events].flatMap(({ event }) =>
    event.case === "messageCompleted" ? [event.value.content] : [],
  );
  expect(history.filter((text) => text !== "Approved.")).toEqual([CALL, ...messages]);
});
