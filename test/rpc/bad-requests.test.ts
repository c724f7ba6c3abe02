import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, createClient, type Transport } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ChatService, OnBusy, type StreamChatRequestSchema } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { drained, type ExpectedRefusal, expectRefusal, LEAKS, refusalOf } from "./refusals.ts";
import { wires } from "./wires.ts";

// What a generated client can send and must not: each case on each wire, to Chat, to StreamChat or to a session's RPC.

let app: TestApp;
let sessionId: string;
let before: unknown;

beforeAll(async () => {
  app = await startTestApp();
  const transport = wires[0]?.transport(app.url) as Transport;
  ({ sessionId } = await createClient(ChatService, transport).chat({ message: "keep this", userId: "u1" }));
  before = await stored(transport);
});
afterAll(() => app.close());

/** All that is stored: nothing of it may change, and nothing may be added. */
async function stored(transport: Transport): Promise<unknown> {
  const sessions = createClient(SessionService, transport);
  const { messages } = await sessions.listMessages({ sessionId });
  const lists = ["u1", "u2", ""].map(async (userId) =>
    userId === "" ? [] : (await sessions.listSessions({ userId })).sessions,
  );
  return { messages, sessions: await Promise.all(lists), modelCalls: app.simulated.callCount };
}

function invalid(...fields: string[]): ExpectedRefusal {
  return { code: Code.InvalidArgument, reason: "INVALID_FIELD", fields };
}

const notThere: ExpectedRefusal = { code: Code.NotFound, reason: "SESSION_NOT_FOUND" };
const notYet: ExpectedRefusal = { code: Code.Unimplemented, reason: "NOT_IMPLEMENTED" };
const manyKeys = Object.fromEntries(Array.from({ length: 1_000 }, (_, index) => [`key-${index}`, index]));

type ChatFields = Omit<MessageInitShape<typeof StreamChatRequestSchema>, "$typeName">;

const chatCases: [string, ChatFields, ExpectedRefusal][] = [
  ["an empty message", { message: "" }, invalid("message")],
  ["a message of 10,001 code points", { message: "a".repeat(10_001) }, invalid("message")],
  ["a message of 10,001 emoji", { message: "🦜".repeat(10_001) }, invalid("message")],
  ["a NUL in the message", { message: "a\u0000b" }, invalid("message")],
  ["an escape in the message", { message: "\u001b[31mred" }, invalid("message")],
  ["a DEL in the message", { message: "a\u007f" }, invalid("message")],
  ["a C1 control in the message", { message: "a\u0085b" }, invalid("message")],
  ["a session that is not there", { sessionId: "nobody-s" }, notThere],
  ["a session of another user", { userId: "u2" }, notThere],
  ["a session id of 129 characters", { sessionId: "s".repeat(129) }, invalid("session_id")],
  ["a session id with a slash", { sessionId: "a/b" }, invalid("session_id")],
  ["a session id with braces", { sessionId: "{a}" }, invalid("session_id")],
  ["no user", { userId: "" }, invalid("user_id")],
  ["a user of 257 code points", { userId: "u".repeat(257) }, invalid("user_id")],
  ["a line end in the user", { userId: "u\nv" }, invalid("user_id")],
  ["1,000 metadata keys", { metadata: manyKeys }, invalid("metadata")],
  ["65 metadata keys", { metadata: Object.fromEntries(Object.entries(manyKeys).slice(0, 65)) }, invalid("metadata")],
  ["metadata of 16 KiB and a byte", { metadata: { k: "v".repeat(16_384 - 7) } }, invalid("metadata")],
  ["a team that is not there", { agentTeam: "nobody" }, { code: Code.NotFound, reason: "AGENT_TEAM_NOT_FOUND" }],
  ["a control character in the team", { agentTeam: "a\u0007" }, invalid("agent_team")],
  ["a use case with a blank", { useCase: "a b" }, invalid("use_case")],
  ["more tokens than the server's bound", { maxTokens: 4_001 }, invalid("max_tokens")],
  ["a negative number of tokens", { maxTokens: -1 }, invalid("max_tokens")],
  [
    "fewer tokens than the message needs",
    { maxTokens: 1 },
    { code: Code.ResourceExhausted, reason: "TURN_TOKEN_BUDGET" },
  ],
  ["an unknown on_busy", { onBusy: 99 as OnBusy }, invalid("on_busy")],
  ["an idempotency key with a blank", { idempotencyKey: "a b" }, invalid("idempotency_key")],
  ["several wrong fields", { message: "", userId: "", maxTokens: -1 }, invalid("message", "user_id", "max_tokens")],
  ["an idempotency key", { idempotencyKey: "retry-1" }, notYet],
  ["on_busy reject", { onBusy: OnBusy.REJECT }, notYet],
  ["on_busy interrupt", { onBusy: OnBusy.INTERRUPT }, notYet],
  ["on_busy rollback", { onBusy: OnBusy.ROLLBACK }, notYet],
];

type Sessions = ReturnType<typeof createClient<typeof SessionService>>;

const sessionCases: [string, (sessions: Sessions) => Promise<unknown>, ExpectedRefusal][] = [
  ["a session that is not there", (s) => s.getSession({ sessionId: "nobody-s" }), notThere],
  ["no session id", (s) => s.getSession({}), invalid("session_id")],
  ["a bad session id", (s) => s.getSession({ sessionId: "a b" }), invalid("session_id")],
  ["a bad id for a new session", (s) => s.createSession({ sessionId: "ä", userId: "u1" }), invalid("session_id")],
  ["no owner for a new session", (s) => s.createSession({}), invalid("user_id")],
  ["1,000 keys for a new session", (s) => s.createSession({ userId: "u1", metadata: manyKeys }), invalid("metadata")],
  [
    "an id that is taken",
    (s) => s.createSession({ sessionId, userId: "u2" }),
    { code: Code.AlreadyExists, reason: "SESSION_EXISTS" },
  ],
  ["an update of nothing", (s) => s.updateSession({ sessionId: "nobody-s" }), notThere],
  ["1,000 keys in an update", (s) => s.updateSession({ sessionId, metadata: manyKeys }), invalid("metadata")],
  ["a deletion of nothing", (s) => s.deleteSession({ sessionId: "nobody-s" }), notThere],
  ["messages of nothing", (s) => s.listMessages({ sessionId: "nobody-s" }), notThere],
  ["a negative page of messages", (s) => s.listMessages({ sessionId, pageSize: -1 }), invalid("page_size")],
  ["a negative page of sessions", (s) => s.listSessions({ userId: "u1", pageSize: -5 }), invalid("page_size")],
  ["sessions of nobody", (s) => s.listSessions({}), invalid("user_id")],
  ["a made-up page token", (s) => s.listMessages({ sessionId, pageToken: "bm9wZQ" }), invalid("page_token")],
  ["a page token that is no base64", (s) => s.listMessages({ sessionId, pageToken: "%%%" }), invalid("page_token")],
  [
    "a page token of another list",
    async (s) => {
      const { nextPageToken: pageToken } = await s.listMessages({ sessionId, pageSize: 1 });
      expect(pageToken).not.toBe("");
      return s.listSessions({ userId: "u1", pageToken });
    },
    invalid("page_token"),
  ],
  [
    "a page token that was changed",
    async (s) => {
      const { nextPageToken } = await s.listMessages({ sessionId, pageSize: 1 });
      const opened = Buffer.from(nextPageToken, "base64url").toString();
      const pageToken = Buffer.from(opened.replace(/:1$/, ":0")).toString("base64url");
      expect(pageToken).not.toBe(nextPageToken);
      return s.listMessages({ sessionId, pageToken });
    },
    invalid("page_token"),
  ],
];

describe.each(wires)("on $name", (wire) => {
  let transport: Transport;
  beforeAll(() => {
    transport = wire.transport(app.url);
  });

  test.each(chatCases)("%s is refused by Chat and StreamChat alike", async (_, fields, expected) => {
    const chat = createClient(ChatService, transport);
    const request = { sessionId, message: "hello", userId: "u1", ...fields };
    const refusals = [await refusalOf(chat.chat(request)), await refusalOf(drained(chat.streamChat(request)))];
    for (const refusal of refusals) {
      expectRefusal(refusal, expected);
      expect(JSON.stringify([refusal.rawMessage, ...refusal.metadata])).not.toMatch(LEAKS);
    }
    expect(await stored(transport)).toEqual(before);
  });

  test.each(sessionCases)("%s is refused", async (_, call, expected) => {
    expectRefusal(await refusalOf(call(createClient(SessionService, transport))), expected);
    expect(await stored(transport)).toEqual(before);
  });

  test("turns that are not there are NOT_FOUND, whatever their id looks like", async () => {
    const chat = createClient(ChatService, transport);
    for (const turnId of ["", "nonsense", "ZGVmYXVsdC9z.AAAAAAAAAAAAAAAA", "é".repeat(2_000)]) {
      expectRefusal(await refusalOf(chat.getTurn({ turnId })), { code: Code.NotFound, reason: "TURN_NOT_FOUND" });
    }
  });
});

test("what is within the bounds by a hair is taken", async () => {
  const chat = createClient(ChatService, wires[0]?.transport(app.url) as Transport);
  const metadata = { k: "v".repeat(16_384 - 8) };
  const request = {
    message: "line\r\nline\ttab 🦜",
    userId: "ü".repeat(256),
    metadata,
    maxTokens: 4_000,
    onBusy: OnBusy.ENQUEUE,
  };
  expect(Buffer.byteLength(JSON.stringify(metadata))).toBe(16_384);
  const { response } = await chat.chat(request);
  expect(response).toContain("line\r\nline\ttab 🦜");
});

test("10,000 code points are taken, of emoji too: they are counted, not their UTF-16 units", async () => {
  const roomy = await startTestApp({ env: { MAX_TOKENS: "200000" }, model: "gpt-4.1" });
  try {
    const chat = createClient(ChatService, wires[0]?.transport(roomy.url) as Transport);
    for (const message of ["a".repeat(10_000), "🦜".repeat(10_000)]) {
      const { response } = await chat.chat({ message, userId: "u1" });
      expect(response.includes(message)).toBe(true);
    }
  } finally {
    await roomy.close();
  }
});
