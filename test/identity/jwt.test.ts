import { generateKeyPair, type JWTPayload, SignJWT, UnsecuredJWT } from "jose";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Authenticator } from "../../src/identity/authenticator.ts";
import { createJwtAuthenticator } from "../../src/identity/jwt-authenticator.ts";
import { expectFailure } from "../store/store-contract.ts";
import { AUDIENCE, startIssuer, type TestIssuer } from "./jwks-server.ts";

let issuer: TestIssuer;
let authenticate: Authenticator;
beforeEach(async () => {
  issuer = await startIssuer();
  authenticate = createJwtAuthenticator({ ...issuer, audience: AUDIENCE, cooldownMs: 50 });
});
afterEach(() => issuer.close());

const bearer = (token: string): Headers => new Headers({ authorization: `Bearer ${token}` });
const withClaims = async (claims: JWTPayload) => authenticate(bearer(await issuer.sign(claims)));
const seconds = (fromNow: number): number => Math.floor(Date.now() / 1_000) + fromNow;

describe("a token of the issuer", () => {
  it("proves who its holder is", async () => {
    const claims = {
      sub: "ann",
      tenant: "acme",
      team: "red",
      use_cases: ["help", "sales"],
      roles: ["chat", "admin", "other"],
    };
    expect(await withClaims(claims)).toEqual({
      tenant: "acme",
      team: "red",
      userId: "ann",
      useCases: ["help", "sales"],
      roles: new Set(["chat", "admin"]),
    });
  });

  it("has the tenant `default`, no team and any use case where it says nothing", async () => {
    expect(await withClaims({ scope: "openid chat" })).toEqual({
      tenant: "default",
      team: "",
      userId: "ann",
      useCases: [],
      roles: new Set(["chat"]),
    });
  });

  it("may act for users that the requests name", async () => {
    const principal = await withClaims({ sub: "gateway", roles: ["chat", "chat:on_behalf"] });
    expect(principal.userId).toBeUndefined();
  });

  it("is accepted while its time is over by no more than clocks differ", async () => {
    await withClaims({ exp: seconds(-20) });
    await withClaims({ nbf: seconds(20) });
    await expectFailure(withClaims({ exp: seconds(-40) }), "CREDENTIALS_EXPIRED");
    await expectFailure(withClaims({ nbf: seconds(60) }), "CREDENTIALS_INVALID");
  });

  it.each<[string, JWTPayload]>([
    ["of another issuer", { iss: "https://elsewhere.example/" }],
    ["for another audience", { aud: "billing" }],
    ["without an end", { exp: undefined } as unknown as JWTPayload],
    ["without a subject", { sub: undefined } as unknown as JWTPayload],
    ["with a tenant that could be part of another's keys", { tenant: "a}:b" }],
    ["with a tenant that is no text", { tenant: ["acme"] }],
    ["with a use case that is no text", { use_cases: [7] }],
    ["with a subject that is a number", { sub: 7 } as unknown as JWTPayload],
    ["with a subject that is no text", { sub: ["ann"] } as unknown as JWTPayload],
    ["with a subject of control characters", { sub: "a\u0000b" }],
  ])("%s is refused", async (_, claims) => {
    await expectFailure(withClaims(claims), "CREDENTIALS_INVALID");
  });
});

describe("a token that is forged", () => {
  it.each<[string, () => Promise<string> | string]>([
    ["that is no token", () => "abc"],
    [
      "without a signature",
      () =>
        new UnsecuredJWT({ sub: "ann" })
          .setIssuer(issuer.issuer)
          .setAudience(AUDIENCE)
          .setExpirationTime("1h")
          .encode(),
    ],
    [
      "signed by somebody else under the issuer's key id",
      async () => {
        const { kid } = await issuer.rotate();
        const { privateKey } = await generateKeyPair("ES256");
        return issuer.sign({}, { key: { kid, privateKey } });
      },
    ],
    [
      "signed with a secret",
      () =>
        new SignJWT({ sub: "ann" })
          .setProtectedHeader({ alg: "HS256" })
          .setIssuer(issuer.issuer)
          .setAudience(AUDIENCE)
          .setExpirationTime("1h")
          .sign(new TextEncoder().encode("a secret that somebody guessed and that is long enough")),
    ],
  ])("%s is refused", async (_, forge) => {
    const failure = await expectFailure(
      Promise.resolve(forge()).then((token) => authenticate(bearer(token))),
      "CREDENTIALS_INVALID",
    );
    expect(String(failure.cause)).not.toContain("ann");
  });

  it("with a changed claim is refused", async () => {
    const [header, payload = "", signature] = (await issuer.sign({ tenant: "acme" })).split(".");
    const claims = JSON.parse(Buffer.from(payload, "base64url").toString()) as JWTPayload;
    const changed = Buffer.from(JSON.stringify({ ...claims, tenant: "other" })).toString("base64url");
    await expectFailure(authenticate(bearer(`${header}.${changed}.${signature}`)), "CREDENTIALS_INVALID");
  });
});

describe("the issuer's keys", () => {
  it("are asked for once, and again when a token has a new one", async () => {
    for (let index = 0; index < 5; index += 1) await withClaims({});
    expect(issuer.requests()).toBe(1);
    await issuer.rotate();
    await new Promise((resolve) => setTimeout(resolve, 60));
    await withClaims({});
    expect(issuer.requests()).toBe(2);
  });

  it("that were replaced are good as long as they are published", async () => {
    const old = await issuer.sign({});
    await issuer.rotate();
    await withClaims({});
    await authenticate(bearer(old));
    const other = createJwtAuthenticator({ ...issuer, audience: AUDIENCE, cooldownMs: 50 });
    await issuer.rotate({ withdraw: true });
    await expectFailure(other(bearer(old)), "CREDENTIALS_INVALID");
  });

  it("are not asked for by each of many tokens with keys that are made up", async () => {
    const slow = createJwtAuthenticator({ ...issuer, audience: AUDIENCE, cooldownMs: 60_000 });
    await slow(bearer(await issuer.sign({})));
    const { privateKey } = await generateKeyPair("ES256");
    for (let index = 0; index < 10; index += 1) {
      const forged = await issuer.sign({}, { key: { kid: `made-up-${index}`, privateKey } });
      await expectFailure(slow(bearer(forged)), "CREDENTIALS_INVALID");
    }
    expect(issuer.requests()).toBe(1);
  });

  it.each(["error", "nonsense"] as const)("that cannot be read (%s) are no verdict on a token", async (how) => {
    const token = await issuer.sign({});
    issuer.answer(how);
    const failure = await expectFailure(authenticate(bearer(token)), "IDENTITY_UNAVAILABLE");
    expect(failure.facts.retryAfterMs).toBeGreaterThan(0);
    issuer.answer("keys");
    await new Promise((resolve) => setTimeout(resolve, 60));
    await authenticate(bearer(token));
  });

  it("that nobody serves are no verdict on a token", async () => {
    const token = await issuer.sign({});
    const nowhere = createJwtAuthenticator({ ...issuer, jwksUrl: "http://127.0.0.1:1/jwks.json", audience: AUDIENCE });
    await expectFailure(nowhere(bearer(token)), "IDENTITY_UNAVAILABLE");
  });
});
