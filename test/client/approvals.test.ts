import { expect, test } from "vitest";
import { createParley, FinishReason } from "../../client/client.ts";
import { STDIO_SERVER } from "../support/mcp-server.ts";
import { useTestApp } from "../support/use-app.ts";

const app = useTestApp({
  yaml: JSON.stringify({
    agents: { one: { model: "sim-tools", tools: ["a.echo"] } },
    teams: { one: { agent: "one" } },
    default_team: "one",
    mcp_servers: { a: { ...STDIO_SERVER, tools: { echo: { approval: "required" } } } },
  }),
});

test("a turn that asks ends as one that has not failed, and the answer goes on with its team", async () => {
  const parley = createParley({ baseUrl: app.url });
  let sessionId = "";
  let toolCallId = "";
  let finishReason = FinishReason.UNSPECIFIED;
  for await (const { event } of parley.stream({ message: '{"text":"purple"}', userId: "u1" }, { timeoutMs: 30_000 })) {
    if (event.case === "turnStarted") ({ sessionId } = event.value);
    if (event.case === "approvalRequired") ({ toolCallId } = event.value);
    if (event.case === "turnCompleted") ({ finishReason } = event.value);
  }
  expect(finishReason).toBe(FinishReason.INPUT_REQUIRED);
  const approvals = [{ toolCallId, approved: true }];
  const reply = await parley.chat({ sessionId, approvals, userId: "u1" }, { timeoutMs: 30_000 });
  expect(reply.finishReason).toBe(FinishReason.STOP);
  expect(reply.response).toContain("purple");
});
