import { Code, createClient } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { useTestApp } from "../support/use-app.ts";
import { errorOf, sendRaw } from "./raw-call.ts";
import { expectRefusal, LEAKS } from "./refusals.ts";
import { wires } from "./wires.ts";

// Reads can be sent as GET, so that browsers and caches treat them as such.

const app = useTestApp();

const connectWires = wires.filter(({ protocol }) => protocol === "connect");

describe.each(connectWires)("on $name", (wire) => {
  const path = "/parley.chat.v1.SessionService/GetSession";
  const get = (query: string) => sendRaw(app.url, { method: "GET", path: `${path}?${query}` }, wire.httpVersion);

  test("a generated client that prefers GET reads sessions, messages and turns", async () => {
    const transport = wire.transport(app.url, { useHttpGet: true });
    const { sessionId, turnId } = await createClient(ChatService, transport).chat({ message: "hello", userId: "u1" });
    const sessions = createClient(SessionService, transport);
    expect((await sessions.getSession({ sessionId })).session?.messageCount).toBe(2n);
    expect((await sessions.listMessages({ sessionId, pageSize: 1 })).messages).toHaveLength(1);
    expect((await createClient(ChatService, transport).getTurn({ turnId })).turn?.sessionId).toBe(sessionId);
  });

  test("a session is read by hand, its id found in the query", async () => {
    const { session } = await createClient(SessionService, wire.transport(app.url)).createSession({ userId: "u1" });
    const message = encodeURIComponent(JSON.stringify({ sessionId: session?.sessionId }));
    const answer = await get(`connect=v1&encoding=json&message=${message}`);
    expect(answer.status).toBe(200);
    expect(JSON.parse(answer.body.toString())).toMatchObject({ session: { sessionId: session?.sessionId } });
  });

  test.each([
    ["JSON that breaks off", "encoding=json&message=%7B"],
    ["bytes that are no UTF-8", "encoding=json&message=%7B%22sessionId%22%3A%22%FF%22%7D"],
    ["a percent sign that stands for nothing", "encoding=json&message=%"],
    ["base64 that is none", "encoding=proto&base64=1&message=%%%"],
    ["bytes that are no message", "encoding=proto&base64=1&message=_____w"],
  ])("%s in the query is refused", async (_, query) => {
    const answer = await get(query);
    expectRefusal(errorOf(wire, false, answer), { code: Code.InvalidArgument, reason: "MALFORMED_REQUEST" });
    expect(answer.status).toBe(400);
    expect(answer.text).not.toMatch(LEAKS);
  });

  test("an encoding that is not known is refused", async () => {
    const answer = await get("encoding=xml&message=%3Ca%3E");
    expectRefusal(errorOf(wire, false, answer), { code: Code.Unimplemented, reason: "UNSUPPORTED_ENCODING" });
    expect(answer.status).toBe(415);
  });

  test("what changes something cannot be sent as GET", async () => {
    const changes = ["ChatService/Chat", "SessionService/CreateSession", "SessionService/DeleteSession"];
    for (const rpc of changes) {
      const query = "connect=v1&encoding=json&message=%7B%7D";
      const answer = await sendRaw(
        app.url,
        { method: "GET", path: `/parley.chat.v1.${rpc}?${query}` },
        wire.httpVersion,
      );
      expect(answer.status).toBe(405);
    }
  });
});
