import type { ServerResponse } from "node:http";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { createContextValues } from "@connectrpc/connect";
import { codeToHttpStatus } from "@connectrpc/connect/protocol-connect";
import * as z from "zod";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { Failure, type FailureReason } from "../failure.ts";
import type { Logger } from "../platform/logger-port.ts";
import { turnExtrasKey } from "./call-context.ts";
import type { LocalCalls } from "./direct-call.ts";
import { toConnectError } from "./error-mapping.ts";
import { errorTable } from "./error-table.ts";
import type { HttpHandler } from "./http-server.ts";
import {
  failureOf,
  isOwnDefect,
  isServed,
  type PlainRequest,
  plainRequest,
  retryMsOf,
  sendJson,
} from "./plain-http.ts";
import { REQUEST_ID_HEADER, type RefusedCall, requestIdOf } from "./request-gate.ts";

export interface RestDoorPorts {
  readonly calls: LocalCalls;
  health(): { readonly storeAnswers: boolean; readonly inRedis: boolean };
  /** What the ops port answers at /metrics. */
  metrics(): Promise<string>;
  readonly metricsContentType: string;
  readonly logger: Logger;
  /** Told of each request that could not be read. */
  onRefused(call: RefusedCall): void;
}

type Response = Parameters<HttpHandler>[1];
type Route = (request: PlainRequest, response: Response, ports: RestDoorPorts) => Promise<void>;

/**
 * The REST calls of the FastAPI service around AutoGen that people move from, over the same turns, so that its clients
 * need no change: Chat and DeleteSession within the process, in that service's form. `docs/from-autogen.md` has the table.
 */
export function createRestDoor(ports: RestDoorPorts): HttpHandler {
  return (request, response) => {
    const asked = plainRequest(request, response);
    const [route, allow] = routeOf(asked.path) ?? [undefined, ""];
    if (route === undefined) return sendDetail(response, 404, "Not Found", new Headers());
    if (!isServed(asked, allow)) return sendDetail(response, 405, "Method Not Allowed", new Headers({ allow }));
    route(asked, response, ports).catch((error: unknown) => {
      if (isOwnDefect(error)) ports.logger.error({ error }, "REST call failed");
      if (response.headersSent) response.destroy();
      else sendFailure(response, error, new Headers());
    });
  };
}

/** Whether a path is this door's. */
export function isRestPath(path: string): boolean {
  return routeOf(path) !== undefined;
}

function routeOf(path: string): [route: Route, allow: string] | undefined {
  switch (path) {
    case "/chat":
      return [chat, "POST"];
    case "/health":
      return [health, "GET"];
    case "/metrics":
      return [metrics, "GET"];
    default:
      return /^\/session\/[^/]+$/.test(path) ? [deleteSession, "DELETE"] : undefined;
  }
}

const chatSchema = z.looseObject({
  session_id: z.string().nullish(),
  message: z.string(),
  user_id: z.string().nullish(),
  // What is in it is the RPC's to check: it is JSON, of any depth.
  metadata: z.record(z.string(), z.unknown()).nullish(),
});

const chat: Route = async (asked, response, { calls, onRefused }) => {
  const requestId = requestIdOf(asked.header);
  let body: z.infer<typeof chatSchema>;
  try {
    body = readChat(await asked.json());
  } catch (error) {
    onRefused({ rpc: ChatService.method.chat.name, requestId, error: toConnectError(error) });
    return sendFailure(response, error, new Headers({ [REQUEST_ID_HEADER]: requestId }));
  }
  const { header, signal } = asked;
  const responseHeader = new Headers();
  try {
    const reply = await calls.unary(
      ChatService.method.chat,
      {
        sessionId: body.session_id ?? "",
        message: body.message,
        userId: body.user_id ?? "",
        ...(body.metadata ? { metadata: body.metadata as JsonObject } : {}),
        idempotencyKey: header.get("idempotency-key") ?? "",
      },
      {
        header,
        signal,
        responseHeader,
        door: "rest",
        values: createContextValues().set(turnExtrasKey, { beginsSession: true }),
      },
    );
    const { promptTokens = 0, completionTokens = 0, totalTokens = 0 } = reply.tokenUsage ?? {};
    sendJson(response, {
      status: 200,
      header: responseHeader,
      body: {
        session_id: reply.sessionId,
        response: reply.response,
        token_usage: { prompt: promptTokens, completion: completionTokens, total: totalTokens },
        processing_time_ms: Number(reply.processingTimeMs),
      },
    });
  } catch (error) {
    if (!signal.aborted) sendFailure(response, error, responseHeader);
  }
};

const deleteSession: Route = async ({ path, header, signal }, response, { calls }) => {
  const sessionId = decoded(path.slice("/session/".length));
  const responseHeader = new Headers();
  try {
    const call = { header, signal, responseHeader, door: "rest" };
    await calls.unary(SessionService.method.deleteSession, { sessionId }, call);
    sendJson(response, { status: 200, header: responseHeader, body: { status: "deleted", session_id: sessionId } });
  } catch (error) {
    if (!signal.aborted) sendFailure(response, error, responseHeader, "path");
  }
};

const health: Route = async (_, response, ports) => {
  const { storeAnswers, inRedis } = ports.health();
  const body = {
    status: storeAnswers ? "healthy" : "degraded",
    redis_connected: inRedis && storeAnswers,
    timestamp: new Date().toISOString(),
  };
  sendJson(response, { status: 200, body });
};

const metrics: Route = async (_, response, ports) => {
  const text = await ports.metrics();
  const reply = response as ServerResponse;
  reply.setHeader("content-type", ports.metricsContentType);
  reply.end(text);
};

/** Throws INVALID_FIELD for what is no such body; what its fields may be is the RPC's to say. */
function readChat(body: JsonValue): z.infer<typeof chatSchema> {
  const parsed = chatSchema.safeParse(body);
  if (parsed.success) return parsed.data;
  const fields = parsed.error.issues.map(({ path, message }) => ({
    field: path.map(String).join("."),
    description: path.length === 1 && !Object.hasOwn(Object(body), path[0] ?? "") ? REQUIRED : message,
  }));
  throw new Failure("INVALID_FIELD", { fields });
}

/** What FastAPI says of a field that is not there. */
const REQUIRED = "Field required";

/** What cannot be decoded is no session's id. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Reasons whose code's HTTP status is not what clients of that service expect. A model's failure is no 5xx: a mesh ejects pods for those. */
const STATUSES: Readonly<Partial<Record<FailureReason, number>>> = {
  INVALID_FIELD: 422,
  MALFORMED_REQUEST: 422,
  TURN_TOKEN_BUDGET: 422,
  REQUEST_TOO_LARGE: 413,
  UNSUPPORTED_ENCODING: 415,
  MODEL_REFUSED: 424,
  MODEL_UNAVAILABLE: 424,
};

/** @param place - Where the fields of the request are, in FastAPI's words. */
function sendFailure(response: Response, error: unknown, header: Headers, place: "body" | "path" = "body"): void {
  const failure = failureOf(error);
  const { reason, facts } = failure;
  const { code, message } = errorTable[reason];
  const retryMs = retryMsOf(failure);
  if (retryMs !== undefined) header.set("retry-after", String(Math.ceil(retryMs / 1_000)));
  sendDetail(
    response,
    STATUSES[reason] ?? codeToHttpStatus(code),
    detailOf(reason, { fields: facts.fields, place }) ?? message,
    header,
  );
}

/** Bad fields as FastAPI lists them; undefined: it is none of that. */
function detailOf(
  reason: FailureReason,
  { fields = [], place }: { fields: Failure["facts"]["fields"]; place: string },
): JsonValue | undefined {
  if (reason === "MALFORMED_REQUEST") return [{ type: "json_invalid", loc: ["body"], msg: "JSON decode error" }];
  if (reason !== "INVALID_FIELD") return undefined;
  return fields.map(({ field, description }) => ({
    type: description === REQUIRED ? "missing" : "value_error",
    loc: [place, ...(field === "" ? [] : [field])],
    msg: description,
  }));
}

function sendDetail(response: Response, status: number, detail: JsonValue, header: Headers): void {
  sendJson(response, { status, header, body: { detail } });
}
