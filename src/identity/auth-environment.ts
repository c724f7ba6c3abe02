import * as z from "zod";
import { type Environment, oneOf, urlOf } from "../platform/environment.ts";

/** How callers are known. */
export type AuthConfig =
  | { readonly mode: "none" }
  | { readonly mode: "api_key" }
  | { readonly mode: "jwt"; readonly issuer: string; readonly audience: string; readonly jwksUrl: string };

/** The variables of identity, for the table of a process's environment. */
export const authVariables = {
  AUTH_MODE: {
    default: "none",
    meaning: "how callers are known: none (everybody is tenant default), api_key or jwt",
  },
  ALLOW_UNAUTHENTICATED: { default: "false", meaning: "true: listen beyond loopback with AUTH_MODE=none all the same" },
  JWT_ISSUER: { default: "", meaning: "issuer whose tokens are accepted, as in their claim iss; with AUTH_MODE=jwt" },
  JWT_AUDIENCE: { default: "", meaning: "what tokens must be for, as in their claim aud; with AUTH_MODE=jwt" },
  JWKS_URL: { default: "", meaning: "URL of the issuer's public keys; with AUTH_MODE=jwt" },
} as const;

/** Their rules. */
export const authEnvironment = {
  AUTH_MODE: oneOf(authVariables.AUTH_MODE.default, ["none", "api_key", "jwt"]),
  ALLOW_UNAUTHENTICATED: oneOf(authVariables.ALLOW_UNAUTHENTICATED.default, ["false", "true"]),
  JWT_ISSUER: z.string().optional(),
  JWT_AUDIENCE: z.string().optional(),
  JWKS_URL: urlOf(/^https?:$/, "an http:// or https:// URL").optional(),
} as const;

const JWT_VARIABLES = ["JWT_ISSUER", "JWT_AUDIENCE", "JWKS_URL"] as const;

/** What is wrong with them together, a line each. */
export function authProblems(given: Environment, { isExposed }: { isExposed: boolean }): string[] {
  const mode = given.AUTH_MODE ?? authVariables.AUTH_MODE.default;
  const problems: string[] = [];
  for (const name of JWT_VARIABLES) {
    if (mode === "jwt" && given[name] === undefined) problems.push(`${name}: must be set with AUTH_MODE=jwt`);
    // Whoever sets one counts on it, so that it is refused, never ignored.
    if (mode !== "jwt" && given[name] !== undefined) problems.push(`${name}: has no meaning without AUTH_MODE=jwt`);
  }
  if (mode === "api_key" && given.REDIS_URL === undefined) {
    problems.push("AUTH_MODE: api_key needs REDIS_URL, for keys are kept in Redis");
  }
  if (mode === "none" && isExposed && given.ALLOW_UNAUTHENTICATED !== "true") {
    problems.push(
      "HOST: listening beyond loopback with AUTH_MODE=none lets anyone in; set ALLOW_UNAUTHENTICATED=true if that is meant",
    );
  }
  return problems;
}

/** What they say, once they have no problem. */
export function readAuth(values: {
  AUTH_MODE: AuthConfig["mode"];
  JWT_ISSUER?: string | undefined;
  JWT_AUDIENCE?: string | undefined;
  JWKS_URL?: string | undefined;
}): AuthConfig {
  const { AUTH_MODE: mode, JWT_ISSUER: issuer = "", JWT_AUDIENCE: audience = "", JWKS_URL: jwksUrl = "" } = values;
  return Object.freeze(mode === "jwt" ? { mode, issuer, audience, jwksUrl } : { mode });
}
