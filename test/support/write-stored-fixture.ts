import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { Redis } from "ioredis";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { packageVersion } from "../../src/package-facts.ts";
import { startTestApp } from "./parley-app.ts";
import { startRedisServer } from "./redis-server.ts";
import { FIXTURE_YAML, RUNNING_REQUEST, readState, type StoredState } from "./stored-state.ts";

// `npm run release:fixtures`: lets this release talk for a while and keeps what it left in Redis, for all later releases
// to read. It is caught amid a turn, whose journal has a model call and a tool call.
const redis = await startRedisServer();
const app = await startTestApp({ redisUrl: redis.url, yaml: FIXTURE_YAML, env: { VERSION: packageVersion() } });
const client = new Redis(redis.url);
try {
  const transport = createConnectTransport({ baseUrl: app.url, httpVersion: "2" });
  const chat = createClient(ChatService, transport);
  const sessions = createClient(SessionService, transport);
  const sessionId = "fixture";
  await sessions.createSession({ sessionId, userId: "u1", metadata: { plan: "gold" } });
  for (const message of ["my name is Ada", "what is my name? 😀"])
    await chat.chat({ sessionId, userId: "u1", message });

  await sessions.createSession({ sessionId: RUNNING_REQUEST.sessionId, userId: RUNNING_REQUEST.userId });
  let runningTurnId = "";
  let called = false;
  for await (const { event } of chat.streamChat(RUNNING_REQUEST)) {
    if (event.case === "turnStarted") runningTurnId = event.value.turnId;
    called ||= event.case === "toolCallCompleted";
    if (called && event.case === "textDelta") break;
  }

  const names = (await client.keys("*")).filter((name) => !name.includes(":rate:")).sort();
  // In one transaction: the turn goes on meanwhile.
  const transaction = client.multi();
  for (const name of names) transaction.dumpBuffer(name);
  const dumps = ((await transaction.exec()) ?? []).map(([, dump]) => dump as Buffer);
  const state: StoredState = {
    keys: Object.fromEntries(names.map((name, index) => [name, dumps[index]?.toString("base64") ?? ""])),
    sessionId,
    seen: await readState(redis.url, sessionId),
    runningTurnId,
  };
  const folder = join(import.meta.dirname, "../fixtures/stored");
  await writeFile(join(folder, `v${packageVersion()}.json`), `${JSON.stringify(state, null, 2)}\n`);
} finally {
  client.disconnect();
  await app.close();
  await redis.stop();
}
