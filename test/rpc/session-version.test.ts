import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { drained } from "./refusals.ts";
import { threeWires, type Wire } from "./wires.ts";

// Which release began a session is told with every answer about it, whichever release answers.

let redis: RedisServer;
beforeAll(async () => {
  redis = await startRedisServer();
});
afterAll(() => redis?.stop());

describe.each([
  ["Redis", () => redis.url],
  ["the embedded store", () => undefined],
])("on %s", (store, redisUrl) => {
  let older: TestApp;
  let newer: TestApp;
  beforeAll(async () => {
    const url = redisUrl();
    const start = (version: string) =>
      startTestApp({ ...(url === undefined ? {} : { redisUrl: url }), env: { VERSION: version } });
    older = await start("0.5.0");
    newer = url === undefined ? older : await start("0.6.0");
  });
  afterAll(async () => {
    await older.close();
    await newer.close();
  });

  test.each(threeWires)("$name", async (wire) => {
    const seen: (string | null)[] = [];
    const onHeader = (header: Headers) => void seen.push(header.get("x-parley-version"));
    const first = clientsOf(wire, older);
    const { sessionId, turnId } = await first.chat.chat({ message: "hello", userId: "u1" }, { onHeader });
    const other = clientsOf(wire, newer);
    await other.chat.chat({ sessionId, message: "hello", userId: "u1" }, { onHeader });
    await drained(other.chat.streamChat({ sessionId, message: "hello", userId: "u1" }, { onHeader }));
    await other.sessions.getSession({ sessionId }, { onHeader });
    await other.sessions.updateSession({ sessionId, metadata: {} }, { onHeader });
    await other.sessions.listMessages({ sessionId }, { onHeader });
    expect(seen).toEqual(Array(6).fill("0.5.0"));

    const made = await other.sessions.createSession({ userId: "u1" }, { onHeader });
    await other.chat.chat({ sessionId: made.session?.sessionId ?? "", message: "hello", userId: "u1" }, { onHeader });
    expect(seen.slice(6)).toEqual(Array(2).fill(store === "Redis" ? "0.6.0" : "0.5.0"));
    // A turn is no session: nobody asks Redis once more for it.
    await other.chat.getTurn({ turnId }, { onHeader });
    expect(seen.at(-1)).toBeNull();
  });

  test("browsers get it as a cookie too, and nobody else does", async () => {
    const call = (headers: Record<string, string>) =>
      fetch(`${newer.url}/parley.chat.v1.SessionService/CreateSession`, {
        method: "POST",
        headers: { "content-type": "application/json", ...headers },
        body: JSON.stringify({ userId: "u1" }),
      });
    const version = store === "Redis" ? "0.6.0" : "0.5.0";
    // Node's fetch says so too, as browsers do.
    const { headers } = await call({ "sec-fetch-mode": "cors" });
    expect(headers.getSetCookie()).toEqual([`parley-version=${version}; Path=/; HttpOnly; SameSite=Lax`]);
    const cookies: string[] = [];
    const onHeader = (header: Headers) => void cookies.push(...header.getSetCookie());
    await clientsOf(threeWires[1], newer).sessions.createSession({ userId: "u1" }, { onHeader });
    expect(cookies).toEqual([]);
  });
});

function clientsOf(wire: Wire, { url }: TestApp) {
  const transport = wire.transport(url);
  return { chat: createClient(ChatService, transport), sessions: createClient(SessionService, transport) };
}
