import { encodeEnvelope, type UniversalServerResponse } from "@connectrpc/connect/protocol";
import { endStreamFlag, endStreamToJson, errorToJsonBytes } from "@connectrpc/connect/protocol-connect";
import { setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { Failure, type FailureReason } from "../failure.ts";
import { toConnectError } from "./error-mapping.ts";

/**
 * Connect answers what is no RPC at all (an unknown path, a wrong method or content type) with a bare HTTP status. This
 * gives such an answer the error in the form that the caller's protocol reads; other answers come back untouched.
 */
export function withErrorBody(
  response: UniversalServerResponse,
  request: {
    readonly contentType: string | null /** Methods that the path takes. */;
    readonly allow: readonly string[];
  },
): UniversalServerResponse {
  if (response.status < 400 || response.body !== undefined) return response;
  const refusal = refuse(reasonOfStatus(response.status), {
    status: response.status,
    contentType: request.contentType,
  });
  response.header?.forEach((value, name) => {
    refusal.header?.set(name, value);
  });
  if (response.status === 405) refusal.header?.set("allow", request.allow.join(", "));
  return refusal;
}

/** The answer to an RPC that no handler serves. */
export function unknownMethod(contentType: string | null): UniversalServerResponse {
  return refuse("UNKNOWN_METHOD", { status: 404, contentType });
}

/** The answer to a request whose address or host cannot be read. */
export function badRequest(contentType: string | null): UniversalServerResponse {
  return refuse("MALFORMED_REQUEST", { status: 400, contentType });
}

/** The answer to a gRPC call where no trailers can be sent. */
export function grpcNotPossible(): UniversalServerResponse {
  return refuse("GRPC_NOT_POSSIBLE", { status: 415, contentType: "application/grpc" });
}

/** The answer of a service that cannot serve, by a fault of its own. */
export function brokenService(contentType: string | null): UniversalServerResponse {
  return refuse("INTERNAL", { status: 500, contentType });
}

/** Whether a request that no handler serves is an RPC for all that, of a service of some package, and not meant for the pages. */
export function looksLikeRpc({
  method,
  path,
  contentType,
}: {
  readonly method: string | undefined;
  readonly path: string;
  readonly contentType: string | null;
}): boolean {
  return method === "POST" && /^\/\w+(\.\w+)+\/\w+$/.test(path) && RPC_CONTENT_TYPE.test(contentType ?? "");
}

const RPC_CONTENT_TYPE = /^application\/(grpc|connect\+|proto|json)/i;

/** Content types of Connect's streams. */
const CONNECT_STREAM_TYPE = /^application\/connect\+(json|proto)(?![\w-])/i;

function refuse(
  reason: FailureReason,
  { status, contentType }: { status: number; contentType: string | null },
): UniversalServerResponse {
  const error = toConnectError(new Failure(reason));
  if (contentType?.startsWith("application/grpc-web")) {
    return {
      status: 200,
      header: setTrailerStatus(new Headers({ "content-type": "application/grpc-web+proto" }), error),
    };
  }
  if (contentType?.startsWith("application/grpc")) {
    const header = new Headers({ "content-type": "application/grpc" });
    return { status: 200, header, trailer: setTrailerStatus(new Headers(), error) };
  }
  const [streamed] = CONNECT_STREAM_TYPE.exec(contentType ?? "") ?? [];
  if (streamed !== undefined) {
    // Clients of a stream read no error from any other status.
    const end = new TextEncoder().encode(JSON.stringify(endStreamToJson(new Headers(), error, {})));
    const header = new Headers({ "content-type": streamed.toLowerCase() });
    return { status: 200, header, body: once(new Uint8Array(encodeEnvelope(endStreamFlag, end))) };
  }
  return {
    status,
    header: new Headers({ "content-type": "application/json" }),
    body: once(new Uint8Array(errorToJsonBytes(error, {}))),
  };
}

function reasonOfStatus(status: number): FailureReason {
  switch (status) {
    case 404:
      return "UNKNOWN_METHOD";
    case 415:
      return "UNSUPPORTED_ENCODING";
    default:
      return "MALFORMED_REQUEST";
  }
}

async function* once(bytes: Uint8Array<ArrayBuffer>): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  yield bytes;
}
