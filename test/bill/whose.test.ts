import type { DescMethod } from "@bufbuild/protobuf";
import { Code, type ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ErrorInfoSchema, QuotaFailureSchema } from "../../gen/google/rpc/error_details_pb.js";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { makeApiKey } from "../../src/identity/api-keys.ts";
import { createRedisApiKeyStore } from "../../src/identity/redis-api-key-store.ts";
import { connectRedis } from "../../src/store/redis-connection.ts";
import { drained, refusalOf } from "../rpc/refusals.ts";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { runServiceProcess } from "../support/service-process.ts";
import { expectAddsUp, rowsOf, withAccounts } from "./bill.ts";

// Who pays is whoever the credentials prove, and nobody sees what is another's: sessions, turns, keys, budgets, bills.

const PEOPLE = {
  ann: { tenant: "acme", team: "red", userId: "ann", useCases: ["help", "sales"], roles: ["chat"] },
  bob: { tenant: "acme", team: "blue", userId: "bob", useCases: [], roles: ["chat"] },
  /** Another tenant's user of the same name. */
  namesake: { tenant: "other", team: "red", userId: "ann", useCases: [], roles: ["chat"] },
  helpdesk: { tenant: "acme", team: "desk", userId: "", useCases: ["help"], roles: ["chat", "chat:on_behalf"] },
} as const;
type Person = keyof typeof PEOPLE;

let redis: RedisServer;
let app: TestApp;
const keys: Partial<Record<Person, string>> = {};
beforeAll(async () => {
  redis = await startRedisServer();
  const connection = connectRedis(redis.url);
  const store = createRedisApiKeyStore(connection);
  for (const [person, claims] of Object.entries(PEOPLE)) {
    keys[person as Person] = (await makeApiKey(store, { note: "", ...claims })).key;
  }
  await connection.close();
  app = await startTestApp({ redisUrl: redis.url, env: { AUTH_MODE: "api_key" } });
});
afterAll(async () => {
  await app.close();
  await redis.stop();
});

function transportOf(person: Person) {
  const authorize: Interceptor = (next) => (request) => {
    request.header.set("authorization", `Bearer ${keys[person]}`);
    return next(request);
  };
  return createGrpcTransport({ baseUrl: app.url, interceptors: [authorize] });
}
const chatOf = (person: Person) => createClient(ChatService, transportOf(person));

const idFields = new Set(["session_id", "turn_id"]);
const methods: readonly DescMethod[] = [...ChatService.methods, ...SessionService.methods];
/** RPCs that ask for something by its id; who creates a session names what is not there yet. */
const asking = methods.filter(
  (method) =>
    method !== SessionService.method.createSession && method.input.fields.some(({ name }) => idFields.has(name)),
);
/** All others: each is looked at below. */
const ASKING_FOR_NOTHING = ["CreateSession", "ListSessions"];

test("each RPC asks for something by its id, or is known not to", () => {
  expect(methods.filter((method) => !asking.includes(method)).map(({ name }) => name)).toEqual(ASKING_FOR_NOTHING);
});

describe("what is another's does not exist", () => {
  let owned: Record<string, string>;
  beforeAll(async () => {
    const { sessionId, turnId } = await chatOf("ann").chat({ message: "this is mine", useCase: "help" });
    owned = { sessionId, turnId };
  });

  describe.each(["bob", "namesake"] as const)("for %s", (person) => {
    test.each(asking.map((method) => [method.name, method] as const))("on %s", async (_, method) => {
      const ask = async (ids: Record<string, string>): Promise<ConnectError> => {
        const fields = new Set(method.input.fields.map(({ localName }) => localName));
        const all = { ...ids, message: "hello" };
        const request = Object.fromEntries(Object.entries(all).filter(([name]) => fields.has(name)));
        const client = createClient(method.parent, transportOf(person)) as Record<string, (one: object) => unknown>;
        const answer = client[method.localName]?.(request);
        return await refusalOf(
          method.methodKind === "unary" ? (answer as Promise<unknown>) : drained(answer as AsyncIterable<unknown>),
        );
      };
      const foreign = await ask(owned);
      expect(foreign.code).toBe(Code.NotFound);
      // To the letter what is said of something that was never there.
      const other = person === "namesake" ? "other" : "acme";
      const unknown = await ask({
        sessionId: "never-there",
        turnId: `${btoa(`${other}/never-there`).replace(/=+$/, "")}.AAAAAAAAAAAAAAAA`,
      });
      expect([foreign.rawMessage, foreign.code]).toEqual([unknown.rawMessage, unknown.code]);
      expect(foreign.findDetails(ErrorInfoSchema)).toEqual(unknown.findDetails(ErrorInfoSchema));
    });

    test("in a list", async () => {
      const { sessions } = await createClient(SessionService, transportOf(person)).listSessions({});
      expect(sessions.map(({ sessionId }) => sessionId)).not.toContain(owned.sessionId);
    });

    test("and an idempotency key is its principal's own", async () => {
      const idempotencyKey = "the-same";
      const mine = await chatOf("ann").chat({ message: "whose?", idempotencyKey, useCase: "help" });
      const theirs = await chatOf(person).chat({ message: "whose?", idempotencyKey });
      expect(theirs.turnId).not.toBe(mine.turnId);
      expect((await chatOf("ann").chat({ message: "whose?", idempotencyKey, useCase: "help" })).turnId).toBe(
        mine.turnId,
      );
    });
  });

  test("and what was asked for in vain has cost nothing", async () => {
    await expectAddsUp(redis, "acme");
    await expectAddsUp(redis, "other");
    const rows = await rowsOf(redis, "other");
    expect(rows.every(({ tenant, userId }) => tenant === "other" && userId === "ann")).toBe(true);
  });
});

test("rows say who paid: tenant, team, user and use case of the credentials", async () => {
  const ann = await chatOf("ann").chat({ message: "for sales", useCase: "sales" });
  const behalf = await chatOf("helpdesk").chat({ message: "for a customer", userId: "carol" });
  await expectAddsUp(redis, "acme");
  const rows = await rowsOf(redis, "acme");
  expect(rows.find(({ turnId }) => turnId === ann.turnId)).toMatchObject({
    tenant: "acme",
    team: "red",
    userId: "ann",
    useCase: "sales",
    sessionId: ann.sessionId,
  });
  // Acting for one user is not acting for another.
  const { sessionId } = ann;
  const foreign = await refusalOf(chatOf("helpdesk").chat({ message: "hello", userId: "carol", sessionId }));
  expect(foreign.code).toBe(Code.NotFound);
  // The only use case of a key is that of a request which names none.
  expect(rows.find(({ turnId }) => turnId === behalf.turnId)).toMatchObject({
    team: "desk",
    userId: "carol",
    useCase: "help",
  });
});

test("a budget of one tenant's user binds nobody of the same name elsewhere", async () => {
  await withAccounts(redis, async (accounts) => {
    await accounts.setBudget("acme", { scope: "user:ann", period: "day", limitMicroUsd: 1n, dryRun: false });
  });
  const refusal = await refusalOf(chatOf("ann").chat({ message: "hello", useCase: "help" }));
  expect(refusal.findDetails(QuotaFailureSchema)[0]?.violations.map(({ subject }) => subject)).toEqual(["user:ann"]);
  await chatOf("namesake").chat({ message: "hello" });
  const preview = await chatOf("namesake").previewChat({ message: "hello" });
  expect(preview).toMatchObject({ admitted: true, headroom: [] });
});

test("a request cannot choose who pays", async () => {
  const cases = [
    [() => chatOf("ann").chat({ message: "hello", userId: "bob", useCase: "help" }), "USER_NOT_ALLOWED"],
    [() => chatOf("ann").chat({ message: "hello", useCase: "legal" }), "USE_CASE_NOT_ALLOWED"],
    // Of several the request must name one.
    [() => chatOf("ann").chat({ message: "hello" }), "USE_CASE_NOT_ALLOWED"],
    [() => chatOf("ann").previewChat({ message: "hello", useCase: "legal" }), "USE_CASE_NOT_ALLOWED"],
    [() => chatOf("helpdesk").chat({ message: "hello", userId: "carol", useCase: "sales" }), "USE_CASE_NOT_ALLOWED"],
  ] as const;
  for (const [call, reason] of cases) {
    const refusal = await refusalOf(call());
    expect(refusal.code).toBe(Code.PermissionDenied);
    expect(refusal.findDetails(ErrorInfoSchema)).toMatchObject([{ reason }]);
  }
});

test("AUTH_MODE=none does not listen beyond loopback unless that is meant", async () => {
  const end = await runServiceProcess({ env: { HOST: "0.0.0.0", PORT: "0", OPS_PORT: "0", REDIS_URL: redis.url } });
  expect(end.code).not.toBe(0);
  expect(end.errorOutput + end.output).toContain("ALLOW_UNAUTHENTICATED=true");
});
