import { toBinary } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { Code, createClient, type Transport } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { ListSessionsResponseSchema, SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { startInMemory } from "./in-memory.ts";
import { expectRefusal, refusalOf } from "./refusals.ts";
import { wires } from "./wires.ts";

let app: TestApp;
let memory: Awaited<ReturnType<typeof startInMemory>>;
beforeAll(async () => {
  app = await startTestApp();
  memory = await startInMemory();
});
afterAll(async () => {
  await app.close();
  await memory.close();
});

const ways = [
  { name: "in memory", transport: () => memory.transport },
  ...wires.map((wire) => ({ name: wire.name, transport: () => wire.transport(app.url) })),
];

describe.each(ways)("$name", ({ name, transport }) => {
  let sessions: ReturnType<typeof createClient<typeof SessionService>>;
  let to: Transport;
  beforeAll(() => {
    to = transport();
    sessions = createClient(SessionService, to);
  });

  test("a session is made, read, given other metadata, and deleted", async () => {
    const metadata = { plan: "pro", nested: { list: [1, null, "x"] } };
    const { session } = await sessions.createSession({ userId: "u1", metadata });
    const sessionId = session?.sessionId ?? "";
    expect(sessionId).toMatch(/^[A-Za-z0-9._-]{1,128}$/);
    expect(session).toMatchObject({
      userId: "u1",
      metadata,
      messageCount: 0n,
      costMicroUsd: 0n,
      version: "0.0.0-test",
    });
    const [created, expires] = [session?.createTime, session?.expireTime].map((time) => time && timestampDate(time));
    expect(Number(expires) - Number(created)).toBe(24 * 3_600_000);
    expect((await sessions.getSession({ sessionId })).session).toEqual(session);

    const updated = (await sessions.updateSession({ sessionId, metadata: { plan: "free" } })).session;
    expect(updated).toMatchObject({ sessionId, userId: "u1", metadata: { plan: "free" } });
    expect((await sessions.getSession({ sessionId })).session).toEqual(updated);
    expect((await sessions.updateSession({ sessionId })).session?.metadata).toBeUndefined();

    await sessions.deleteSession({ sessionId });
    const gone = { code: Code.NotFound, reason: "SESSION_NOT_FOUND" } as const;
    expectRefusal(await refusalOf(sessions.getSession({ sessionId })), gone);
    expectRefusal(await refusalOf(sessions.deleteSession({ sessionId })), gone);
    expectRefusal(await refusalOf(sessions.listMessages({ sessionId })), gone);
  });

  test("a session may be given its id", async () => {
    const sessionId = `Chosen.by_me-${name.replaceAll(/[^A-Za-z0-9]/g, "-")}`;
    expect((await sessions.createSession({ sessionId, userId: "u1" })).session?.sessionId).toBe(sessionId);
    const again = await refusalOf(sessions.createSession({ sessionId, userId: "u1" }));
    expectRefusal(again, { code: Code.AlreadyExists, reason: "SESSION_EXISTS" });
  });

  test("a user's sessions are listed newest first, page by page, and nobody else's", async () => {
    const userId = `lists ${name}`;
    const made: string[] = [];
    for (let index = 0; index < 7; index++) {
      const { session } = await sessions.createSession({ userId });
      made.push(session?.sessionId ?? "");
    }
    await sessions.createSession({ userId: `${userId} too` });
    const pages: string[][] = [];
    let pageToken = "";
    do {
      const page = await sessions.listSessions({ userId, pageSize: 3, pageToken });
      pages.push(page.sessions.map(({ sessionId }) => sessionId));
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    expect(pages.map(({ length }) => length)).toEqual([3, 3, 1]);
    // Sessions of one millisecond have no order in time.
    expect(pages.flat().toSorted()).toEqual(made.toSorted());
    const times = (await sessions.listSessions({ userId })).sessions.map(({ createTime }) =>
      createTime === undefined ? 0 : timestampDate(createTime).getTime(),
    );
    expect(times).toEqual(times.toSorted((a, b) => b - a));
    expect((await sessions.listSessions({ userId: `${userId} nobody` })).sessions).toEqual([]);
  });

  test("messages are listed oldest first, page by page", async () => {
    const chat = createClient(ChatService, to);
    const { sessionId } = await chat.chat({ message: "message 1", userId: "u1" });
    for (const message of ["message 2", "message 3"]) await chat.chat({ sessionId, message, userId: "u1" });
    const all = (await sessions.listMessages({ sessionId })).messages;
    expect(all.filter((_, index) => index % 2 === 0).map(({ content }) => content)).toEqual([
      "message 1",
      "message 2",
      "message 3",
    ]);
    const paged: typeof all = [];
    const sizes: number[] = [];
    let pageToken = "";
    do {
      const page = await sessions.listMessages({ sessionId, pageSize: 4, pageToken });
      paged.push(...page.messages);
      sizes.push(page.messages.length);
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    expect(paged).toEqual(all);
    expect(sizes).toEqual([4, 2]);
  });
});

test("a page has 50 when nothing is asked for and 200 at most", async () => {
  const sessions = createClient(SessionService, memory.transport);
  const userId = "many";
  await Promise.all(Array.from({ length: 205 }, () => sessions.createSession({ userId })));
  const sizeOf = async (pageSize: number) => (await sessions.listSessions({ userId, pageSize })).sessions.length;
  expect([await sizeOf(0), await sizeOf(200), await sizeOf(2_000_000_000)]).toEqual([50, 200, 200]);
});

test("a page ends before it is more than gRPC's clients take, and the next one goes on", async () => {
  const sessions = createClient(SessionService, memory.transport);
  const userId = "large";
  // Of 16 KiB as JSON, and six times as much in binary.
  const metadata = { numbers: Array.from({ length: 8_000 }, () => 1) };
  const create = () => sessions.createSession({ userId, metadata });
  const created = await Promise.all(Array.from({ length: 60 }, create));
  const listed: string[] = [];
  const bytes: number[] = [];
  let pageToken = "";
  do {
    const page = await sessions.listSessions({ userId, pageSize: 200, pageToken });
    bytes.push(toBinary(ListSessionsResponseSchema, page).byteLength);
    listed.push(...page.sessions.map(({ sessionId }) => sessionId));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  expect(listed.toSorted()).toEqual(created.map(({ session }) => session?.sessionId).toSorted());
  expect(bytes.length).toBeGreaterThan(1);
  expect(Math.max(...bytes)).toBeLessThan(4 * 1_024 * 1_024);
});
