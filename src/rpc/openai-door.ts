import type { JsonObject } from "@bufbuild/protobuf";
import { createContextValues } from "@connectrpc/connect";
import { codeToString } from "@connectrpc/connect/protocol-connect";
import { ChatService, OnDisconnect, type StreamChatResponse } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { Failure } from "../failure.ts";
import type { Authenticator } from "../identity/authenticator.ts";
import { ANYONE, hasRole } from "../identity/principal.ts";
import type { Logger } from "../platform/logger-port.ts";
import type { AdmittedTurn } from "../turns/admission.ts";
import { type TurnExtras, turnExtrasKey } from "./call-context.ts";
import type { LocalCalls } from "./direct-call.ts";
import { toConnectError } from "./error-mapping.ts";
import type { HttpHandler } from "./http-server.ts";
import type { RequestMetrics } from "./metrics-observer.ts";
import { type CompletionHead, completionOf, readReply, sendStream } from "./openai-completion.ts";
import { openAiError } from "./openai-errors.ts";
import { completedReply, type ReplyText, streamedReply, TextUnsaid } from "./openai-reply.ts";
import { type CompletionRequest, readCompletionRequest } from "./openai-request.ts";
import {
  eventStream,
  failureOf,
  isOwnDefect,
  isServed,
  type PlainRequest,
  plainRequest,
  sendJson,
} from "./plain-http.ts";
import { REQUEST_ID_HEADER, type RefusedCall, requestIdOf } from "./request-gate.ts";

/** Begins the paths that are this door's. */
export const OPENAI_PREFIX = "/v1/";

/** Names the session, in and out. */
const SESSION_ID_HEADER = "x-parley-session-id";
/** Names the turn, out: what ResumeTurn and GetTurn take. */
const TURN_ID_HEADER = "x-parley-turn-id";
const USE_CASE_HEADER = "x-parley-use-case";
const IDEMPOTENCY_KEY_HEADER = "idempotency-key";

/** Who callers are that prove no user and name none: most clients of that API don't. */
const ANONYMOUS = "anonymous";

export interface OpenAiDoorPorts {
  readonly calls: LocalCalls;
  /** Names of the agent teams that there are now: the models. */
  teams(): readonly string[];
  /** Turns in a window, for the headers of a refusal. */
  readonly rateLimit: number;
  /** Absent: everyone is anyone. */
  readonly authenticate: Authenticator | undefined;
  readonly metrics: RequestMetrics;
  readonly logger: Logger;
  /** Told of each request that could not be read. */
  onRefused(call: RefusedCall): void;
}

type Response = Parameters<HttpHandler>[1];
type RateState = NonNullable<AdmittedTurn["rate"]>;

/**
 * The chat completions of OpenAI's API, over the same turns: a completion is a StreamChat within the process, so that
 * whatever holds for RPCs holds for it. `docs/openai.md` says what becomes of each of its parameters.
 */
export function createOpenAiDoor(ports: OpenAiDoorPorts): HttpHandler {
  const listed = createModelList(ports);
  return (request, response) => {
    const asked = plainRequest(request, response);
    const [route, allow] = routeOf(asked.path);
    if (route === undefined || !isServed(asked, allow)) return refuseUnserved(response, { asked, allow });
    const serve = route === "completions" ? complete : listed;
    serve(asked, response, ports).catch(() => response.destroy());
  };
}

function routeOf(path: string): [route: "completions" | "models" | undefined, allow: string] {
  if (path === "/v1/chat/completions") return ["completions", "POST"];
  return path === "/v1/models" || path.startsWith("/v1/models/") ? ["models", "GET"] : [undefined, ""];
}

function refuseUnserved(response: Response, { asked, allow }: { asked: PlainRequest; allow: string }): void {
  const { body, header } = openAiError(new Failure("UNKNOWN_METHOD"));
  header.set(REQUEST_ID_HEADER, requestIdOf(asked.header));
  if (allow !== "") header.set("allow", allow);
  sendJson(response, { status: allow === "" ? 404 : 405, header, body });
}

/** `POST /v1/chat/completions`. */
async function complete(asked: PlainRequest, response: Response, ports: OpenAiDoorPorts): Promise<void> {
  let wanted: CompletionRequest;
  try {
    wanted = readCompletionRequest(await asked.json());
  } catch (error) {
    const requestId = requestIdOf(asked.header);
    ports.onRefused({ rpc: ChatService.method.streamChat.name, requestId, error: toConnectError(error) });
    return sendError(response, error, { header: new Headers({ [REQUEST_ID_HEADER]: requestId }) });
  }
  const turn: Partial<{ sessionId: string; turnId: string; rate: RateState; isReplay: boolean }> = {};
  const responseHeader = new Headers();
  const headerOf = (): Headers => {
    if (turn.sessionId !== undefined) responseHeader.set(SESSION_ID_HEADER, turn.sessionId);
    if (turn.turnId !== undefined) responseHeader.set(TURN_ID_HEADER, turn.turnId);
    if (turn.rate !== undefined) setRateHeaders(responseHeader, turn.rate);
    return responseHeader;
  };
  const events = startTurn(wanted, {
    asked,
    ports,
    responseHeader,
    onAdmitted: ({ ref, begun, rate }) =>
      Object.assign(turn, { ...ref, isReplay: begun === undefined, ...(rate === undefined ? {} : { rate }) }),
  });
  const head = (): CompletionHead => ({
    id: `chatcmpl-${turn.turnId ?? ""}`,
    created: Math.floor(Date.now() / 1_000),
    model: wanted.model,
  });
  const stream = eventStream(response, headerOf);
  try {
    if (wanted.stream) {
      // What of a turn was said before this call came may be void: of such a turn whole messages go out, and not their pieces.
      const reply = (): ReplyText => (turn.isReplay === true ? completedReply() : streamedReply());
      await sendStream(events, { stream, head, reply, includeUsage: wanted.includeUsage });
    } else {
      const { content, finish, usage } = await readReply(events);
      sendJson(response, { status: 200, header: headerOf(), body: completionOf(head(), { content, finish, usage }) });
    }
  } catch (error) {
    if (asked.signal.aborted) return;
    if (isOwnDefect(error) && !(error instanceof TextUnsaid)) ports.logger.error({ error }, "completion failed");
    const header = headerOf();
    const failure = failureOf(error);
    if (failure.reason === "RATE_LIMITED") {
      setRateHeaders(header, { limit: ports.rateLimit, remaining: 0, resetMs: failure.facts.retryAfterMs ?? 0 });
    }
    if (!stream.begun) return sendError(response, error, { header });
    // The status is said already: clients read an error amid a stream so. There is no [DONE], for it is not.
    await stream.data(JSON.stringify(error instanceof TextUnsaid ? TEXT_UNSAID : openAiError(failure).body));
    stream.end();
  }
}

/** The turn that a completion is. */
function startTurn(
  { model, message, earlier, wishes, user, metadata }: CompletionRequest,
  {
    asked,
    ports,
    responseHeader,
    onAdmitted,
  }: {
    asked: PlainRequest;
    ports: OpenAiDoorPorts;
    responseHeader: Headers;
    onAdmitted: NonNullable<TurnExtras["onAdmitted"]>;
  },
): AsyncGenerator<StreamChatResponse, void> {
  const { header, signal } = asked;
  const idempotencyKey = header.get(IDEMPOTENCY_KEY_HEADER) ?? "";
  const values = createContextValues().set(turnExtrasKey, {
    beginsSession: true,
    ...(earlier.length === 0 ? {} : { earlier }),
    ...(Object.keys(wishes).length === 0 ? {} : { wishes }),
    onAdmitted,
  });
  return ports.calls.stream(
    ChatService.method.streamChat,
    {
      sessionId: header.get(SESSION_ID_HEADER) ?? "",
      message,
      userId: user === "" && ports.authenticate === undefined ? ANONYMOUS : user,
      ...(metadata === undefined ? {} : { metadata }),
      idempotencyKey,
      agentTeam: model,
      useCase: header.get(USE_CASE_HEADER) ?? "",
      // There a client that goes away ends its completion. Whoever sent a key may come back for it.
      onDisconnect: idempotencyKey === "" ? OnDisconnect.CANCEL : OnDisconnect.CONTINUE,
    },
    { header, signal, responseHeader, door: "openai", values },
  );
}

/** `GET /v1/models` and `GET /v1/models/{model}`, for whoever may chat. */
function createModelList({ teams, authenticate, metrics, logger }: OpenAiDoorPorts) {
  const created = Math.floor(Date.now() / 1_000);
  const models = (): JsonObject[] => teams().map((id) => ({ id, object: "model", created, owned_by: "parley" }));

  return async ({ path, header }: PlainRequest, response: Response): Promise<void> => {
    const startedMs = performance.now();
    const requestId = requestIdOf(header);
    const answered = new Headers({ [REQUEST_ID_HEADER]: requestId });
    let code = "ok";
    try {
      const principal = (await authenticate?.(header)) ?? ANYONE;
      if (!hasRole(principal, "chat")) throw new Failure("ROLE_MISSING");
      const body = path === "/v1/models" ? { object: "list", data: models() } : modelNamed(path);
      if (body === undefined) throw new Failure("AGENT_TEAM_NOT_FOUND");
      sendJson(response, { status: 200, header: answered, body });
    } catch (error) {
      code = codeToString(toConnectError(error).code);
      sendError(response, error, { header: answered });
    }
    const seconds = (performance.now() - startedMs) / 1_000;
    metrics.requestEnded({ rpc: "models", code, seconds });
    logger.info({ rpc: "models", code, duration_ms: Math.round(seconds * 1_000), request_id: requestId }, "rpc ended");
  };

  function modelNamed(path: string): JsonObject | undefined {
    // Names of teams need no escapes.
    return models().find(({ id }) => path === `/v1/models/${id}`);
  }
}

function sendError(response: Response, error: unknown, { header }: { header: Headers }): void {
  const { status, body, header: more } = openAiError(failureOf(error));
  more.forEach((value, name) => void header.set(name, value));
  sendJson(response, { status, header, body });
}

/** What the API of the other side says of its limits, as far as there are such here. */
function setRateHeaders(header: Headers, { limit, remaining, resetMs }: RateState): void {
  header.set("x-ratelimit-limit-requests", String(limit));
  header.set("x-ratelimit-remaining-requests", String(remaining));
  header.set("x-ratelimit-reset-requests", durationText(resetMs));
}

/** As Go writes durations: `120ms`, `6m0s`, `1h0m0s`. */
function durationText(ms: number): string {
  if (ms < 1_000) return `${Math.ceil(ms)}ms`;
  const seconds = Math.ceil(ms / 1_000);
  const [hours, minutes] = [Math.floor(seconds / 3_600), Math.floor(seconds / 60) % 60];
  const prefix = hours > 0 ? `${hours}h${minutes}m` : minutes > 0 ? `${minutes}m` : "";
  return `${prefix}${seconds % 60}s`;
}

const TEXT_UNSAID = {
  error: {
    message:
      "The replica that ran the turn was lost, and its text so far is void. The turn goes on: ask again with the same idempotency-key, or read the turn that x-parley-turn-id names.",
    type: "server_error",
    param: null,
    code: "text_void",
  },
};
