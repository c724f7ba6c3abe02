import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { useRedis } from "../support/redis-of-file.ts";

// What teams have learnt since the doors were made holds for whoever comes in by them.

const redis = useRedis();

async function started(options: Parameters<typeof startTestApp>[0]): Promise<TestApp> {
  const app = await startTestApp(options);
  onTestFinished(() => app.close());
  return app;
}

interface Completion {
  readonly error?: { readonly code: string };
  readonly choices?: readonly { readonly message: { readonly content: string }; readonly finish_reason: string }[];
}

async function ask(app: TestApp, body: object, headers: Record<string, string> = {}) {
  const response = await fetch(`${app.url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
  const { error, choices } = (await response.json()) as Completion;
  return { headers: response.headers, error: error?.code, said: choices?.[0]?.message.content };
}

const user = (content: string) => ({ role: "user", content });

test("the models are the teams that there are now", async () => {
  const folder = await mkdtemp(join(tmpdir(), "parley-doors-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const configFile = join(folder, "parley.yaml");
  const write = (team: string) =>
    writeFile(configFile, JSON.stringify({ agents: { one: {} }, teams: { [team]: { agent: "one" } } }));
  await write("before");
  const app = await started({ configFile });
  const models = async () => {
    const { data } = (await (await fetch(`${app.url}/v1/models`)).json()) as { data: { id: string }[] };
    return data.map(({ id }) => id);
  };
  expect(await models()).toEqual(["before"]);
  await write("after");
  app.app.reload();
  await eventually(async () => expect(await models()).toEqual(["after"]));
  expect((await fetch(`${app.url}/v1/models/after`)).status).toBe(200);
  expect((await fetch(`${app.url}/v1/models/before`)).status).toBe(404);
  expect((await ask(app, { model: "after", messages: [user("hello")] })).said).toContain("hello");
  expect((await ask(app, { model: "before", messages: [user("hello")] })).error).toBe("model_not_found");
});

test("an agent's question is the answer of a completion, and the session's next message answers it", async () => {
  const app = await started({
    yaml: JSON.stringify({
      agents: { guide: { model: "sim-tools", system_message: "Guide." } },
      teams: { guide: { agent: "guide", human_input: true } },
    }),
  });
  const question = user('{"question":"Which city?"}');
  const instructed = (content: string) => ({ role: "system", content });
  const asked = await ask(app, { model: "guide", messages: [instructed("Be brief."), question] });
  expect(asked.said).toBe("Which city?");
  const session = { "x-parley-session-id": asked.headers.get("x-parley-session-id") ?? "" };
  const answered = await ask(app, { model: "guide", messages: [instructed("Be long."), user("Rome")] }, session);
  expect(answered.error).toBeUndefined();
  // The team goes on as it began: instructions of its first turn, once.
  expect(app.simulated.calls.at(-1)?.messages.map(({ role, content }) => [role, content])).toEqual([
    ["system", "Guide.\n\nBe brief."],
    ["user", question.content],
    ["assistant", ""],
    ["tool", "Rome"],
  ]);
});

test.each(["Redis", "the embedded store"])("a session's release is told by both doors: %s", async (store) => {
  const redisUrl = store === "Redis" ? { redisUrl: redis.server.url } : {};
  const app = await started({ env: { REST_DOOR: "true", VERSION: "1.2.3" }, ...redisUrl });
  const messages = [user("my name is Ann"), { role: "assistant", content: "Hello Ann" }, user("hello")];
  const completed = await ask(app, { model: "assistant", messages });
  expect(completed.headers.get("x-parley-version")).toBe("1.2.3");
  // A session that begins with a history has all of it, and nothing else.
  expect(
    app.simulated.calls
      .at(-1)
      ?.messages.map(({ content }) => content)
      .slice(-3),
  ).toEqual(messages.map(({ content }) => content));
  const chatted = await fetch(`${app.url}/chat`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ message: "hello", user_id: "ann" }),
  });
  expect([chatted.status, chatted.headers.get("x-parley-version")]).toEqual([200, "1.2.3"]);
});
