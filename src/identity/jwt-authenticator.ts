import { createRemoteJWKSet, errors, type JWTPayload, jwtVerify } from "jose";
import { Failure } from "../failure.ts";
import { type Authenticator, bearerOf } from "./authenticator.ts";
import { principalOf } from "./principal.ts";

/** Signatures by a key that only the issuer has; a shared secret could be anybody's who checks. */
const ALGORITHMS = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
  "Ed25519",
];

/** Clocks of issuer and service may differ by this much, in seconds. */
const CLOCK_SKEW_SECONDS = 30;

/**
 * The issuer's keys: asked for anew when a token has an unknown one, but not more often than `cooldownMs`, and when they
 * are as old as `maxAgeMs`, so that a key that the issuer has withdrawn is no longer good.
 */
const JWKS = { cooldownMs: 5_000, maxAgeMs: 600_000, timeoutMs: 3_000 } as const;

/** Advice when the issuer does not answer, in milliseconds. */
const RETRY_AFTER_MS = 2_000;

/**
 * AUTH_MODE=jwt: tokens of one issuer, meant for this service, signed by a key of its JWKS.
 *
 * | claim | principal |
 * |---|---|
 * | `sub` | user; not with the role chat:on_behalf, whose requests name their users |
 * | `tenant` | tenant; absent: `default` |
 * | `team` | team that pays; absent: none |
 * | `use_cases` | array, or words: what the token is for; absent: anything |
 * | `roles`, else `scope` | array, or words: roles; others than ours are left out |
 */
export function createJwtAuthenticator({
  issuer,
  audience,
  jwksUrl,
  cooldownMs = JWKS.cooldownMs,
}: {
  issuer: string;
  audience: string;
  jwksUrl: string;
  /** Pause between two questions for the issuer's keys, in milliseconds. Default 5,000. */
  cooldownMs?: number;
}): Authenticator {
  const keys = createRemoteJWKSet(new URL(jwksUrl), {
    cooldownDuration: cooldownMs,
    cacheMaxAge: JWKS.maxAgeMs,
    timeoutDuration: JWKS.timeoutMs,
  });
  return async (headers) => {
    const token = bearerOf(headers);
    const payload = await verify(token);
    const principal = principalOf(claimsOf(payload));
    if (typeof principal === "string") throw new Failure("CREDENTIALS_INVALID", {}, { cause: new Error(principal) });
    return principal;
  };

  async function verify(token: string): Promise<JWTPayload> {
    try {
      const { payload } = await jwtVerify(token, keys, {
        issuer,
        audience,
        algorithms: ALGORITHMS,
        clockTolerance: CLOCK_SKEW_SECONDS,
        requiredClaims: ["exp", "sub"],
      });
      return payload;
    } catch (error) {
      throw failureOf(error);
    }
  }
}

/** The cause is the kind of the error only: its text may quote the token. */
function failureOf(error: unknown): Failure {
  const cause = new Error(error instanceof errors.JOSEError ? error.code : "the issuer's keys cannot be read");
  if (error instanceof errors.JWTExpired) return new Failure("CREDENTIALS_EXPIRED", {}, { cause });
  const isToken = error instanceof errors.JOSEError && !KEYS_UNREADABLE.has(error.code);
  if (isToken) return new Failure("CREDENTIALS_INVALID", {}, { cause });
  return new Failure("IDENTITY_UNAVAILABLE", { retryAfterMs: RETRY_AFTER_MS }, { cause });
}

/** What jose says when the set of keys, not the token, is at fault; any other error of a fetch is none of its own. */
const KEYS_UNREADABLE: ReadonlySet<string> = new Set([
  errors.JOSEError.code,
  errors.JWKSTimeout.code,
  errors.JWKSInvalid.code,
]);

function claimsOf(payload: JWTPayload) {
  return {
    tenant: payload.tenant === undefined ? "default" : textOf(payload.tenant),
    team: textOf(payload.team ?? ""),
    userId: textOf(payload.sub ?? ""),
    useCases: wordsOf(payload.use_cases),
    roles: wordsOf(payload.roles ?? payload.scope),
  };
}

/** A claim of another type is nobody's name: it fails every name's rule. */
function textOf(claim: unknown): string {
  return typeof claim === "string" ? claim : "\0";
}

function wordsOf(claim: unknown): string[] {
  if (claim === undefined || claim === null) return [];
  if (typeof claim === "string") return claim.split(" ").filter((word) => word !== "");
  return Array.isArray(claim) ? claim.map(textOf) : ["\0"];
}
