import { Failure } from "../failure.ts";
import type { Principal } from "./principal.ts";

/**
 * Who calls, by the headers of the call. CREDENTIALS_MISSING, CREDENTIALS_INVALID, CREDENTIALS_EXPIRED: nobody that is
 * known. IDENTITY_UNAVAILABLE, STORE_UNAVAILABLE: nobody can tell now.
 */
export type Authenticator = (headers: Pick<Headers, "get">) => Promise<Principal>;

/** What stands after `Bearer` in the authorization header (RFC 6750, 2.1). */
export function bearerOf(headers: Pick<Headers, "get">): string {
  const [, token] = /^Bearer +([A-Za-z0-9._~+/-]+=*) *$/i.exec(headers.get("authorization") ?? "") ?? [];
  if (token === undefined) throw new Failure("CREDENTIALS_MISSING");
  return token;
}
