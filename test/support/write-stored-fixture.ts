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
import { readState, type StoredState } from "./stored-state.ts";

// `npm run release:fixtures`: lets this release talk for a while and keeps what it left in Redis, for all later releases
// to read.
const redis = await startRedisServer();
const app = await startTestApp({ redisUrl: redis.url, env: { VERSION: packageVersion() } });
const client = new Redis(redis.url);
try {
  const transport = createConnectTransport({ baseUrl: app.url, httpVersion: "2" });
  const chat = createClient(ChatService, transport);
  const sessionId = "fixture";
  await createClient(SessionService, transport).createSession({ sessionId, userId: "u1", metadata: { plan: "gold" } });
  for (const message of ["my name is Ada", "what is my name? 😀"])
    await chat.chat({ sessionId, userId: "u1", message });

  const names = (await client.keys("*")).filter((name) => !name.includes(":rate:")).sort();
  const dumps = await Promise.all(
    names.map(async (name) => [name, (await client.dumpBuffer(name)).toString("base64")]),
  );
  const state: StoredState = {
    keys: Object.fromEntries(dumps),
    sessionId,
    seen: await readState(redis.url, sessionId),
  };
  const folder = join(import.meta.dirname, "../fixtures/stored");
  await writeFile(join(folder, `v${packageVersion()}.json`), `${JSON.stringify(state, null, 2)}\n`);
} finally {
  client.disconnect();
  await app.close();
  await redis.stop();
}
