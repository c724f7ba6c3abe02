import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code } from "@connectrpc/connect";
import { expect, onTestFinished, test } from "vitest";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { startTestApp } from "../support/parley-app.ts";
import { type Caller, callerOf, casesOf, expectWhole, finishOf, type Reading, USER } from "./clients.ts";
import { startParts } from "./parts.ts";

const YAML = JSON.stringify({
  agents: { guide: { model: "sim-tools" }, writer: { model: "gpt-4o" }, closer: { model: "sim-terminate" } },
  teams: {
    guide: { agent: "guide", human_input: true },
    plain: { agent: "writer" },
    round: { kind: "round_robin", agents: ["writer", "user_proxy", "closer"], human_input: true },
  },
});

const ASK = '{"question":"Which city?"}';

async function said(caller: Caller, sessionId: string, message: string, agentTeam: string): Promise<Reading> {
  const reading = caller.stream(sessionId, message, agentTeam);
  expect(await reading.end).toBeUndefined();
  expectWhole(reading.events);
  return reading;
}

function sessionOf({ events }: Reading): string {
  const [started] = events;
  return started?.event.case === "turnStarted" ? started.event.value.sessionId : "";
}

function promptsOf({ events }: Reading): string[] {
  return events.flatMap(({ event }) => (event.case === "inputRequired" ? [event.value.prompt] : []));
}

test("an agent asks, the session waits, the next message is the answer", async () => {
  const app = await startTestApp({ yaml: YAML });
  onTestFinished(() => app.close());
  const caller = callerOf(app);
  const asking = await said(caller, "", ASK, "guide");
  const sessionId = sessionOf(asking);
  expect([finishOf(asking.events), promptsOf(asking), asking.text()]).toEqual([
    FinishReason.INPUT_REQUIRED,
    ["Which city?"],
    "Which city?",
  ]);
  const going = await said(caller, sessionId, "Rome", "guide");
  expect(casesOf(going.events)).toEqual([
    "turnStarted",
    "agentStarted",
    "textDelta",
    "messageCompleted",
    "usageRecorded",
    "turnCompleted",
  ]);
  expect(finishOf(going.events)).toBe(FinishReason.STOP);
  expect(app.simulated.calls.at(-1)?.messages.map(({ role, content }) => [role, content])).toEqual([
    ["system", expect.any(String)],
    ["user", ASK],
    ["assistant", ""],
    ["tool", "Rome"],
  ]);
  expect(app.simulated.callCount).toBe(2);
  expect(await caller.history(sessionId)).toEqual([ASK, "Which city?", "Rome", going.text()]);

  const unary = await caller.chat.chat({ userId: USER, message: ASK, agentTeam: "guide" });
  expect([unary.finishReason, unary.response]).toEqual([FinishReason.INPUT_REQUIRED, "Which city?"]);
});

test("a message to another team makes the question void", async () => {
  const app = await startTestApp({ yaml: YAML });
  onTestFinished(() => app.close());
  const caller = callerOf(app);
  const asking = await said(caller, "", ASK, "guide");
  expect((await said(caller, sessionOf(asking), "hello", "plain")).text()).toContain("hello");
  const anew = await said(caller, sessionOf(asking), ASK, "guide");
  expect(finishOf(anew.events)).toBe(FinishReason.INPUT_REQUIRED);
  const wrong = caller.stream(sessionOf(asking), "", "", { approvals: [{ toolCallId: "nobody-1", approved: true }] });
  expect(await wrong.end).toMatchObject({ code: Code.FailedPrecondition });
});

test.each([
  ["guide", ASK],
  ["round", "A poem, please."],
])("the question of %s outlives all processes, also one that is killed as it asks", async (team, message) => {
  const parts = await startParts();
  const folder = await mkdtemp(join(tmpdir(), "parley-input-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, "parley.yaml");
  await writeFile(file, YAML);
  const env = { CONFIG_FILE: file, LEASE_MS: "1000" };
  const first = await parts.startReplica({ ...env, DIE_AT: "before commit 1" });
  const cut = callerOf(first).stream("", message, team);
  await cut.end;
  expect(await first.ended).toMatchObject({ signal: "SIGKILL" });
  const second = await parts.startService(env);
  const turnId = cut.events[0]?.event.case === "turnStarted" ? cut.events[0].event.value.turnId : "";
  const asking = callerOf(second).resume(turnId);
  expect(await asking.end).toBeUndefined();
  expect(finishOf(asking.events)).toBe(FinishReason.INPUT_REQUIRED);
  await second.stop();

  const third = await parts.startService(env);
  const sessionId = sessionOf(cut);
  expect(await callerOf(third).history(sessionId)).toEqual([message, ...promptsOf(asking)]);
  const calls = parts.model.callCount;
  const going = await said(callerOf(third), sessionId, "Rome", team);
  expect(parts.model.callCount).toBe(calls + 1);
  expect(JSON.stringify(parts.model.calls.at(-1)?.messages)).toContain("Rome");
  expect(finishOf(going.events)).toBe(team === "round" ? FinishReason.TERMINATED : FinishReason.STOP);
});
