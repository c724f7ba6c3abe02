import { createContextKey, type HandlerContext } from "@connectrpc/connect";
import { ANYONE, type Principal } from "../identity/principal.ts";
import type { AdmittedTurn, TurnRequest } from "../turns/admission.ts";

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

/** What a route within the process asks of a turn that no RPC's request can say. */
export interface TurnExtras extends Pick<TurnRequest, "beginsSession" | "earlier" | "wishes"> {
  /** Called when the turn is admitted, before its first event. */
  readonly onAdmitted?: (turn: AdmittedTurn) => void;
}

export const turnExtrasKey = createContextKey<TurnExtras>({}, { description: "parley extras of a turn" });

/** What a call was about, for its log line. Ids only that were checked: what a caller made up is not logged. */
export interface TouchedIds {
  readonly sessionId?: string;
  readonly turnId?: string;
}

export const touchedIdsKey = createContextKey<TouchedIds>({}, { description: "parley ids that a call touched" });

/** Notes what the call is about, beside what was noted before. */
export function touch(context: Pick<HandlerContext, "values">, ids: TouchedIds): void {
  context.values.set(touchedIdsKey, { ...context.values.get(touchedIdsKey), ...ids });
}

export function callContextOf(context: Pick<HandlerContext, "values">): CallContext {
  return context.values.get(callContextKey);
}
