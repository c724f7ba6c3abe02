import { type DescMessage, type MessageShape, toBinary } from "@bufbuild/protobuf";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { MessageSchema } from "../../gen/parley/chat/v1/message_pb.js";
import { type Session, SessionSchema } from "../../gen/parley/chat/v1/session_pb.js";
import type { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { Failure } from "../failure.ts";
import { actingUser } from "../identity/principal.ts";
import type { SessionRef, SessionStore } from "../turns/ports.ts";
import { callContextOf, touch } from "./call-context.ts";
import { openPageToken, sealPageToken } from "./page-token.ts";
import { checkCreateSessionRequest, checkListRequest, checkMetadata, checkSessionId } from "./request-validation.ts";
import { tellVersion } from "./session-version.ts";

/** Sessions or messages on a page: when the request does not say, and at most (DESIGN §3). */
const PAGE_SIZE = { standard: 50, most: 200 } as const;

/**
 * A page ends early when it has become this large, in bytes: gRPC's clients (Go, Java, Python, Rust) refuse a message of more
 * than 4 MiB unless they are told otherwise, and the last item may itself be large.
 */
const PAGE_BYTES = 2 * 1_024 * 1_024;

export interface SessionHandlerPorts {
  readonly store: SessionStore;
  /** Version of the release, kept with the sessions that it begins. */
  readonly version: string;
}

/** SessionService. A session of another user does not exist for the caller. */
export function createSessionHandlers({ store, version }: SessionHandlerPorts): ServiceImpl<typeof SessionService> {
  /** The session, if it is there for this caller. */
  const find = async (sessionId: string, context: HandlerContext): Promise<{ ref: SessionRef; session: Session }> => {
    checkSessionId(sessionId);
    touch(context, { sessionId });
    const { principal } = callContextOf(context);
    const ref = { tenant: principal.tenant, sessionId };
    const session = await store.getSession(ref);
    const foreign = principal.userId !== undefined && principal.userId !== session?.userId;
    if (session === undefined || foreign) throw new Failure("SESSION_NOT_FOUND");
    tellVersion(context, session.version);
    return { ref, session };
  };

  return {
    async createSession(request, context) {
      const { principal } = callContextOf(context);
      const userId = actingUser(principal, request.userId);
      checkCreateSessionRequest(request, { userId });
      const session = await store.createSession({
        tenant: principal.tenant,
        sessionId: request.sessionId || crypto.randomUUID(),
        userId,
        version,
        ...(request.metadata === undefined ? {} : { metadata: request.metadata }),
      });
      touch(context, { sessionId: session.sessionId });
      tellVersion(context, session.version);
      return { session };
    },

    async getSession(request, context) {
      const { session } = await find(request.sessionId, context);
      return { session };
    },

    async listSessions(request, context) {
      const { principal } = callContextOf(context);
      const userId = actingUser(principal, request.userId);
      checkListRequest({ pageSize: request.pageSize, userId });
      const list = { kind: "sessions", tenant: principal.tenant, of: userId } as const;
      const [createTimeMs, sessionId] = openPageToken(request.pageToken, list)?.split("/") ?? [];
      const limit = pageSize(request.pageSize);
      const sessions = await store.listSessions({
        tenant: principal.tenant,
        userId,
        limit: limit + 1,
        ...(sessionId === undefined ? {} : { after: { createTimeMs: Number(createTimeMs), sessionId } }),
      });
      const page = pageOf(SessionSchema, sessions, limit);
      const last = page.at(-1);
      const more = sessions.length > page.length && last !== undefined;
      return {
        sessions: page,
        nextPageToken: more ? sealPageToken(`${createTimeMsOf(last)}/${last.sessionId}`, list) : "",
      };
    },

    async updateSession(request, context) {
      checkMetadata(request.metadata);
      const { ref } = await find(request.sessionId, context);
      const session = await store.updateSession(ref, request.metadata);
      if (session === undefined) throw new Failure("SESSION_NOT_FOUND");
      return { session };
    },

    async deleteSession(request, context) {
      const { ref } = await find(request.sessionId, context);
      if (!(await store.deleteSession(ref))) throw new Failure("SESSION_NOT_FOUND");
      return {};
    },

    async listMessages(request, context) {
      checkListRequest(request, { userIdNeeded: false });
      const { ref } = await find(request.sessionId, context);
      const list = { kind: "messages", tenant: ref.tenant, of: ref.sessionId } as const;
      const offset = Number(openPageToken(request.pageToken, list) ?? 0);
      const limit = pageSize(request.pageSize);
      const messages = await store.listMessages(ref, { offset, limit: limit + 1 });
      if (messages === undefined) throw new Failure("SESSION_NOT_FOUND");
      const page = pageOf(MessageSchema, messages, limit);
      const more = messages.length > page.length;
      return {
        messages: page,
        nextPageToken: more ? sealPageToken(`${offset + page.length}`, list) : "",
      };
    },
  };
}

function pageSize(asked: number): number {
  return Math.min(asked || PAGE_SIZE.standard, PAGE_SIZE.most);
}

/** The first items that make a page: at most `limit`, as many as fit, and one at least. */
function pageOf<Desc extends DescMessage>(
  schema: Desc,
  items: readonly MessageShape<Desc>[],
  limit: number,
): MessageShape<Desc>[] {
  let bytes = 0;
  const fitting = items.findIndex((item) => {
    bytes += toBinary(schema, item).byteLength;
    return bytes > PAGE_BYTES;
  });
  return items.slice(0, fitting === -1 ? limit : Math.min(limit, Math.max(1, fitting)));
}

function createTimeMsOf(session: Session): number {
  const { seconds = 0n, nanos = 0 } = session.createTime ?? {};
  return Number(seconds) * 1_000 + Math.floor(nanos / 1e6);
}
