import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { Health } from "../../gen/grpc/health/v1/health_pb.js";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { UsageService } from "../../gen/parley/usage/v1/usage_service_pb.js";
import { makeApiKey } from "../../src/identity/api-keys.ts";
import { createRedisApiKeyStore } from "../../src/identity/redis-api-key-store.ts";
import { roleNeededFor } from "../../src/rpc/access-table.ts";
import { connectRedis } from "../../src/store/redis-connection.ts";
import { AUDIENCE, startIssuer, type TestIssuer } from "../identity/jwks-server.ts";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";

type Holder = "ann" | "bob" | "stranger" | "gateway" | "reader" | "helper";

let redis: RedisServer;
let issuer: TestIssuer;
beforeAll(async () => {
  redis = await startRedisServer();
  issuer = await startIssuer();
});
afterAll(async () => {
  await redis.stop();
  await issuer.close();
});

/** Who there is: two users of a tenant, one of the same name elsewhere, and some with other roles. */
const holders: Readonly<Record<Holder, { tenant: string; userId: string; roles: string[]; useCases: string[] }>> = {
  ann: { tenant: "acme", userId: "ann", roles: ["chat"], useCases: [] },
  bob: { tenant: "acme", userId: "bob", roles: ["chat"], useCases: [] },
  stranger: { tenant: "other", userId: "ann", roles: ["chat"], useCases: [] },
  gateway: { tenant: "acme", userId: "", roles: ["chat", "chat:on_behalf"], useCases: [] },
  reader: { tenant: "acme", userId: "ann", roles: ["usage:read"], useCases: [] },
  helper: { tenant: "acme", userId: "ann", roles: ["chat"], useCases: ["help"] },
};

const guarded: readonly (readonly [string, DescMethod])[] = [ChatService, SessionService].flatMap(({ methods }) =>
  methods.map((method) => [method.name, method] as const),
);

async function credentialsByKey(): Promise<Record<Holder, string>> {
  const connection = connectRedis(redis.url);
  const keys = createRedisApiKeyStore(connection);
  const made = await Promise.all(
    Object.entries(holders).map(async ([name, claims]) => {
      const { key } = await makeApiKey(keys, { team: "red", note: "", ...claims });
      return [name, key] as const;
    }),
  );
  await connection.close();
  return Object.fromEntries(made) as Record<Holder, string>;
}

async function credentialsByToken(): Promise<Record<Holder, string>> {
  const made = await Promise.all(
    Object.entries(holders).map(async ([name, { tenant, userId, roles, useCases }]) => {
      return [name, await issuer.sign({ sub: userId || "gateway", tenant, roles, use_cases: useCases })] as const;
    }),
  );
  return Object.fromEntries(made) as Record<Holder, string>;
}

describe.each([
  ["api_key", credentialsByKey, () => ({})],
  ["jwt", credentialsByToken, () => ({ JWT_ISSUER: issuer.issuer, JWT_AUDIENCE: AUDIENCE, JWKS_URL: issuer.jwksUrl })],
] as const)("AUTH_MODE=%s", (mode, credentialsOf, env) => {
  let app: TestApp;
  let credentials: Record<Holder, string>;
  let sessionId: string;
  let turnId: string;
  beforeAll(async () => {
    const connection = connectRedis(redis.url);
    await connection.use((client) => client.flushall());
    await connection.close();
    credentials = await credentialsOf();
    app = await startTestApp({ redisUrl: redis.url, env: { AUTH_MODE: mode, ...env() } });
    const reply = await chat("ann").chat({ message: "my name is Ada" });
    ({ sessionId, turnId } = reply);
  });
  afterAll(() => app.close());

  const transportOf = (authorization?: string) => {
    const authorize: Interceptor = (next) => (request) => {
      if (authorization !== undefined) request.header.set("authorization", authorization);
      return next(request);
    };
    return createConnectTransport({ baseUrl: app.url, httpVersion: "2", interceptors: [authorize] });
  };
  const transport = (who: Holder) => transportOf(`Bearer ${credentials[who]}`);
  const chat = (who: Holder) => createClient(ChatService, transport(who));
  const sessions = (who: Holder) => createClient(SessionService, transport(who));

  /** Calls an RPC with what can be asked for, and tells how it ended. */
  async function endOf(method: DescMethod, through: ReturnType<typeof transportOf>, request: Record<string, string>) {
    const fields = new Set(method.input.fields.map(({ localName }) => localName));
    const message = Object.fromEntries(Object.entries(request).filter(([name]) => fields.has(name)));
    try {
      if (method.methodKind === "unary") {
        await through.unary(method as DescMethod & { methodKind: "unary" }, undefined, undefined, undefined, message);
      } else {
        const one = (async function* () {
          yield message;
        })();
        const answer = await through.stream(
          method as DescMethod & { methodKind: "server_streaming" },
          undefined,
          undefined,
          undefined,
          one,
        );
        for await (const _ of answer.message);
      }
      return "ok";
    } catch (error) {
      const { code } = ConnectError.from(error);
      return `${Code[code]} ${ConnectError.from(error).findDetails(ErrorInfoSchema)[0]?.reason}`;
    }
  }

  test.each(guarded)("%s takes credentials", async (_, method) => {
    const request = { sessionId, turnId, message: "hello", userId: "ann" };
    expect(await endOf(method, transportOf(), request)).toBe("Unauthenticated CREDENTIALS_MISSING");
    expect(await endOf(method, transportOf("Bearer parley_made-up"), request)).toBe(
      "Unauthenticated CREDENTIALS_INVALID",
    );
    expect(await endOf(method, transport("reader"), request)).toBe("PermissionDenied ROLE_MISSING");
  });

  // Whoever makes a session may choose a name that is taken elsewhere; it is another session then.
  const namesSomething = ({ name, input }: DescMethod): boolean =>
    name !== SessionService.method.createSession.name &&
    input.fields.some((field) => field.name === "session_id" || field.name === "turn_id");

  test.each(guarded.filter(([, method]) => namesSomething(method)))(
    "%s does not know what is another user's or another tenant's",
    async (_, method) => {
      const request = { sessionId, turnId, message: "hello" };
      const unknown = /^NotFound (SESSION|TURN)_NOT_FOUND$/;
      expect(await endOf(method, transport("bob"), request)).toMatch(unknown);
      expect(await endOf(method, transport("stranger"), request)).toMatch(unknown);
    },
  );

  test("the user is the credentials', and nobody can say otherwise", async () => {
    const { session } = await sessions("ann").getSession({ sessionId });
    expect(session?.userId).toBe("ann");
    const naming = guarded.filter(([, { input }]) => input.fields.some((field) => field.name === "user_id"));
    expect(naming.length).toBeGreaterThan(3);
    for (const [, method] of naming) {
      const request = { message: "hello", userId: "bob" };
      expect(await endOf(method, transport("ann"), request), method.name).toBe("PermissionDenied USER_NOT_ALLOWED");
    }
    expect((await sessions("ann").listSessions({})).sessions).toHaveLength(1);
    expect((await sessions("bob").listSessions({})).sessions).toEqual([]);
  });

  test("whoever acts on behalf names its users", async () => {
    const missing = await endOf(ChatService.method.chat, transport("gateway"), { message: "hello" });
    expect(missing).toBe("InvalidArgument INVALID_FIELD");
    const reply = await chat("gateway").chat({ message: "hello", userId: "ann", sessionId });
    expect(reply.sessionId).toBe(sessionId);
    expect((await chat("gateway").getTurn({ turnId: reply.turnId })).turn?.sessionId).toBe(sessionId);
  });

  test("the use case is one that the credentials are for", async () => {
    const request = { message: "hello", useCase: "sales" };
    expect(await endOf(ChatService.method.chat, transport("helper"), request)).toBe(
      "PermissionDenied USE_CASE_NOT_ALLOWED",
    );
    expect(await endOf(ChatService.method.chat, transport("helper"), { message: "hello", useCase: "help" })).toBe("ok");
    expect(await endOf(ChatService.method.chat, transport("helper"), { message: "hello" })).toBe("ok");
  });

  test("health takes no credentials", async () => {
    expect(await endOf(Health.method.check, transportOf(), {})).toBe("ok");
  });

  test("no credentials stand in a log", () => {
    for (const secret of Object.values(credentials)) expect(app.logs.text()).not.toContain(secret);
  });
});

test("every RPC of ours takes a role", () => {
  const roles = [ChatService, SessionService, UsageService].flatMap(({ methods }) =>
    methods.map((method: DescMethod) => [method.name, roleNeededFor(method)]),
  );
  expect(roles.filter(([, role]) => role === undefined)).toEqual([]);
  expect(roles.filter(([, role]) => role === "admin").map(([name]) => name)).toEqual(["SetBudget", "RepriceUsage"]);
});
