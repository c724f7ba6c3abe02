import { base64Decode } from "@bufbuild/protobuf/wire";
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { Failure } from "../failure.ts";
import type { Authenticator } from "../identity/authenticator.ts";
import { ANYONE } from "../identity/principal.ts";
import { callContextKey } from "./call-context.ts";
import { toConnectError } from "./error-mapping.ts";
import { isOurs } from "./framework-errors.ts";
import { checkRole, needsPrincipal } from "./method-roles.ts";

/** Header that carries a request's id, in and out. */
export const REQUEST_ID_HEADER = "x-request-id";

/** A call that ended before any interceptor saw it: it could not be read. */
export interface RefusedCall {
  /** The method, such as `Chat`. */
  readonly rpc: string;
  readonly requestId: string;
  readonly error: ConnectError;
}

/**
 * What happens to every call before Connect reads its message: it gets its id, and the errors that Connect will make of
 * it get our sentences.
 *
 * Connect aborts a call's signal with the very error object that it is about to serialise, whatever the protocol. This
 * is the one place where an error can be reached that no interceptor sees, so it is corrected there, in place: no
 * response is parsed or wrapped, and a call that goes well pays for one listener.
 */
export function createRequestGate({
  onRefused,
  authenticate,
}: {
  onRefused?: ((call: RefusedCall) => void) | undefined;
  /** Says who calls. Absent: everyone is anyone. */
  authenticate?: Authenticator | undefined;
} = {}): (context: HandlerContext) => void | Promise<void> {
  return (context) => {
    const requestId = requestIdOf(context.requestHeader);
    context.values.set(callContextKey, { principal: ANYONE, requestId });
    context.responseHeader.set(REQUEST_ID_HEADER, requestId);
    const onAbort = (): void => {
      const error: unknown = context.signal.reason;
      if (!(error instanceof ConnectError) || isOurs(error)) return;
      correct(error);
      // Deadlines and cancels reach the handler too, and are accounted there.
      const refused = error.code !== Code.Canceled && error.code !== Code.DeadlineExceeded;
      if (refused) onRefused?.({ rpc: context.method.name, requestId, error });
    };
    // The client may be gone, or its deadline past, before its call begins.
    if (context.signal.aborted) onAbort();
    else context.signal.addEventListener("abort", onAbort, { once: true });
    if (context.requestMethod === "GET" && !isReadableQuery(context.url)) {
      const error = toConnectError(new Failure("MALFORMED_REQUEST"));
      onRefused?.({ rpc: context.method.name, requestId, error });
      throw error;
    }
    if (authenticate === undefined || !needsPrincipal(context.method)) return;
    return identify(context, { requestId, authenticate }).catch((reason: unknown) => {
      const error = toConnectError(reason);
      onRefused?.({ rpc: context.method.name, requestId, error });
      throw error;
    });
  };
}

/** Finds out who calls, before anything of the message is read. */
async function identify(
  context: HandlerContext,
  { requestId, authenticate }: { requestId: string; authenticate: Authenticator },
): Promise<void> {
  const principal = await authenticate(context.requestHeader);
  checkRole(context.method, principal);
  context.values.set(callContextKey, { principal, requestId });
}

/** Gives an error of Connect's our code, sentence and details; its own text stays nowhere but in the cause. */
function correct(error: ConnectError): void {
  const cause = new ConnectError(error.rawMessage, error.code, undefined, undefined, error.cause);
  const { code, rawMessage, message, details } = toConnectError(cause);
  Object.assign(error, { code, rawMessage, message, details, cause });
}

/** The client's id, if it can stand in a header and a log line; else a new one. */
export function requestIdOf(header: Headers): string {
  const given = header.get(REQUEST_ID_HEADER);
  return given !== null && /^[\x21-\x7e]{1,128}$/.test(given) ? given : crypto.randomUUID();
}

/**
 * Whether a Connect GET's query can be read. Left to `URLSearchParams`, bytes that are no UTF-8 would become U+FFFD
 * silently, and base64 that is none would come out as a defect of ours.
 */
function isReadableQuery(url: string): boolean {
  const query = url.slice(url.indexOf("?") + 1);
  try {
    decodeURIComponent(query.replaceAll("+", " "));
    const parameters = new URLSearchParams(query);
    if (parameters.get("base64") === "1") base64Decode(parameters.get("message") ?? "");
    return true;
  } catch {
    return false;
  }
}
