import { mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code } from "@connectrpc/connect";
import { expect, onTestFinished, test } from "vitest";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { eventually } from "../support/eventually.ts";
import { STDIO_SERVER, startHttpMcpServer } from "../support/mcp-server.ts";
import { startTestApp } from "../support/parley-app.ts";
import { startServiceProcess } from "../support/service-process.ts";
import { callerOf, finishOf, spoken } from "./clients.ts";
import { shareParts } from "./parts.ts";

const parts = shareParts();

/** A text of parley.yaml with a team for each name, each of an agent that its model says. */
function teamsOf(models: Readonly<Record<string, string>>, sections: object = {}): string {
  const agents = Object.fromEntries(Object.entries(models).map(([name, model]) => [name, { model }]));
  const teams = Object.fromEntries(Object.keys(models).map((agent) => [agent, { agent }]));
  return JSON.stringify({ agents, teams, ...sections });
}

async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "parley-reload-"));
  onTestFinished(() => rm(path, { recursive: true, force: true }));
  return path;
}

const READ_AGAIN = { msg: "configuration file read again" };
const REFUSED = { msg: "configuration file refused; the old one stays" };

test("on SIGHUP new teams are there at once; a running turn and one that waits keep theirs", async () => {
  const file = join(await folder(), "parley.yaml");
  await writeFile(file, teamsOf({ slow: "sim-50x30", old: "gpt-4o" }));
  const service = await parts().startService({ CONFIG_FILE: file });
  const caller = callerOf(service);
  const sessionId = await caller.createSession();
  const running = caller.stream(sessionId, "go", "slow");
  await spoken(running);
  // Its model, agent and team are gone when it begins.
  const waiting = caller.stream(sessionId, "next", "old");
  await eventually(() => expect(waiting.places).toEqual([1]));
  await writeFile(file, teamsOf({ new: "gpt-4.1" }));
  service.send("SIGHUP");
  await eventually(() => expect(service.logged(READ_AGAIN)).toHaveLength(1));
  expect((await caller.chat.chat({ message: "hello", userId: "u", agentTeam: "new" })).response).toContain("hello");
  expect((await caller.chat.chat({ message: "hello", userId: "u" })).response).toContain("hello");
  expect(parts().model.calls.at(-1)?.model).toBe("gpt-4.1");
  expect(await caller.stream("", "hello", "old").end).toMatchObject({ code: Code.NotFound });
  expect(await (await fetch(`${service.url}/console-config.json`)).json()).toMatchObject({
    model: "gpt-4.1",
    teams: ["new"],
  });
  expect([await running.end, await waiting.end]).toEqual([undefined, undefined]);
  expect([running, waiting].map(({ events }) => finishOf(events))).toEqual([FinishReason.STOP, FinishReason.STOP]);
  expect(waiting.text()).toContain("next");
});

test("a team that has asked the user and is gone since goes on with the answer, and with nothing else", async () => {
  const file = join(await folder(), "parley.yaml");
  const guide = { agents: { guide: { model: "sim-tools" } }, teams: { guide: { agent: "guide", human_input: true } } };
  await writeFile(file, JSON.stringify(guide));
  const app = await startTestApp({ configFile: file });
  onTestFinished(() => app.close());
  const caller = callerOf(app);
  const asking = caller.stream("", '{"question":"Which city?"}', "guide");
  expect(await asking.end).toBeUndefined();
  expect(finishOf(asking.events)).toBe(FinishReason.INPUT_REQUIRED);
  const [started] = asking.events;
  const sessionId = started?.event.case === "turnStarted" ? started.event.value.sessionId : "";
  await writeFile(file, teamsOf({ new: "sim-tools" }));
  app.app.reload();
  const gone = { code: Code.NotFound };
  expect(await caller.stream(sessionId, "Rome", "another").end).toMatchObject(gone);
  const going = caller.stream(sessionId, "Rome", "guide");
  expect(await going.end).toBeUndefined();
  expect(finishOf(going.events)).toBe(FinishReason.STOP);
  expect(app.simulated.calls.at(-1)?.messages.at(-1)).toMatchObject({ role: "tool", content: "Rome" });
  expect(await caller.stream(sessionId, "And now?", "guide").end).toMatchObject(gone);
});

test("a mounted file is read again when its link is swapped, as Kubernetes does it", async () => {
  const mount = await folder();
  const version = async (name: string, text: string): Promise<void> => {
    await mkdir(join(mount, name));
    await writeFile(join(mount, name, "parley.yaml"), text);
    await symlink(name, join(mount, "..data_tmp"));
    await rename(join(mount, "..data_tmp"), join(mount, "..data"));
  };
  await version("..first", teamsOf({ one: "gpt-4o" }));
  await symlink(join("..data", "parley.yaml"), join(mount, "parley.yaml"));
  const service = await parts().startService({ CONFIG_FILE: join(mount, "parley.yaml") });
  await version("..second", teamsOf({ two: "gpt-4o" }));
  await eventually(() => expect(service.logged(READ_AGAIN)).toHaveLength(1));
  expect((await callerOf(service).chat.chat({ message: "hello", userId: "u", agentTeam: "two" })).response).toContain(
    "hello",
  );
});

test("a file with problems is refused with file, line and field, counted, and told of once", async () => {
  const file = join(await folder(), "parley.yaml");
  const budgets = [{ tenant: "*", scope: "user", id: "*", period: "day", limit_micro_usd: 5_000_000 }];
  await writeFile(file, teamsOf({ one: "gpt-4o" }, { budgets }));
  const service = await parts().startService({ CONFIG_FILE: file });
  const count = async (result: string): Promise<number> => {
    const text = await (await fetch(`${service.opsUrl}/metrics`)).text();
    return Number(new RegExp(`^parley_config_reloads_total\\{result="${result}".*\\} (\\d+)$`, "m").exec(text)?.[1]);
  };
  expect([await count("used"), await count("refused")]).toEqual([0, 0]);
  await writeFile(file, "agents:\n  one: {}\nteams:\n  one:\n    agent: two\n    kind: pair\n");
  await eventually(() => expect(service.logged(REFUSED)).toHaveLength(1));
  expect(service.logged(REFUSED)[0]?.problems).toEqual([
    `${file}:6: teams.one.kind: must be single, round_robin, selector or swarm`,
  ]);
  const caller = callerOf(service);
  expect((await caller.chat.chat({ message: "hello", userId: "u", agentTeam: "one" })).response).toContain("hello");
  await rm(file);
  await eventually(() => expect(service.logged(REFUSED)).toHaveLength(2));
  expect(service.logged(REFUSED)[1]?.problems).toEqual([`CONFIG_FILE: cannot read ${file}`]);
  await writeFile(file, teamsOf({ two: "gpt-4o" }, { breaker: { min_calls: 3 }, budgets }));
  await eventually(() => expect(service.logged(READ_AGAIN)).toHaveLength(1));
  expect(service.logged({ msg: "what has changed in these sections needs a restart" })).toMatchObject([
    { sections: ["breaker"] },
  ]);
  expect([await count("used"), await count("refused")]).toEqual([1, 2]);
  expect((await caller.chat.chat({ message: "hello", userId: "u", agentTeam: "two" })).response).toContain("hello");
});

test("tool servers: one that stays is not reached anew, one that is gone ends with the last turn that began with it", async () => {
  const path = await folder();
  const file = join(path, "parley.yaml");
  const calls = join(path, "calls");
  const stays = await startHttpMcpServer();
  onTestFinished(() => stays.close());
  const goes = { ...STDIO_SERVER, env: { MCP_CALLS: calls, MCP_END: calls } };
  const withServers = (servers: object, tools: readonly string[], options = {}) =>
    JSON.stringify({
      agents: { user: { model: "sim-tools-20x150", tools } },
      teams: { user: { agent: "user" } },
      mcp_servers: { stays: { url: stays.url, ...options }, ...servers },
    });
  await writeFile(file, withServers({ goes }, ["goes.echo", "stays.echo"]));
  const app = await startTestApp({ configFile: file });
  onTestFinished(() => app.close());
  await eventually(() => expect(app.logs.where({ msg: "tool server reached" })).toHaveLength(2));
  const caller = callerOf(app);
  const running = caller.stream("", '{"text":"purple"}', "user");
  await spoken(running);
  const lines = async () => (await readFile(calls, "utf8").catch(() => "")).split("\n").slice(0, -1);
  // What is declared of its tools is another, and how it is reached is not.
  await writeFile(file, withServers({}, ["stays.echo"], { tools: { echo: { idempotent: true } } }));
  app.app.reload();
  expect(await lines()).toEqual([]);
  expect(await running.end).toBeUndefined();
  const told = running.events.flatMap(({ event }) => (event.case === "toolCallCompleted" ? [event.value.content] : []));
  expect(told).toEqual(["purple", "purple"]);
  await eventually(async () => expect(await lines()).toEqual(["echo purple", "end"]));
  const after = caller.stream("", '{"text":"green"}', "user");
  expect(await after.end).toBeUndefined();
  expect(app.logs.where({ msg: "tool server reached" })).toHaveLength(2);
  expect(stays.ended).toBe(0);
});

test("without a file there is nothing to read again, and SIGHUP harms nobody", async () => {
  const service = await startServiceProcess({
    env: { REDIS_URL: parts().redis.url, OPENAI_BASE_URL: parts().model.baseUrl },
  });
  onTestFinished(() => service.stop());
  service.send("SIGHUP");
  expect((await callerOf(service).chat.chat({ message: "hello", userId: "u" })).response).toContain("hello");
  expect(service.logged(READ_AGAIN)).toEqual([]);
});
