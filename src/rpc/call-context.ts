import { createContextKey, type HandlerContext } from "@connectrpc/connect";
import { ANYONE, type Principal } from "../identity/principal.ts";

/** What interceptors know of a call before its handler runs. */
export interface CallContext {
  readonly principal: Principal;
  /** From the request's x-request-id header, else made here. */
  readonly requestId: string;
}

export const callContextKey = createContextKey<CallContext>(
  { principal: ANYONE, requestId: "" },
  { description: "parley call context" },
);

export function callContextOf(context: Pick<HandlerContext, "values">): CallContext {
  return context.values.get(callContextKey);
}
