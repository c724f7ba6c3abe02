import type { Interceptor } from "@connectrpc/connect";
import { Failure } from "../failure.ts";
import type { Authenticator } from "../identity/authenticator.ts";
import { hasRole } from "../identity/principal.ts";
import { roleNeededFor } from "./access-table.ts";
import { callContextKey } from "./call-context.ts";

/** Finds out who calls, before any handler, and refuses calls whose roles are not enough. Throws {@link Failure}s. */
export function authenticateCalls(authenticate: Authenticator): Interceptor {
  return (next) => async (request) => {
    const needed = roleNeededFor(request.method);
    if (needed === undefined) return next(request);
    const principal = await authenticate(request.header);
    if (!hasRole(principal, needed)) throw new Failure("ROLE_MISSING");
    const context = request.contextValues.get(callContextKey);
    request.contextValues.set(callContextKey, { ...context, principal });
    return next(request);
  };
}
