import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import type { Session } from "../../gen/parley/chat/v1/session_pb.js";
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
      const page = sessions.slice(0, limit);
      const last = page.at(-1);
      const more = sessions.length > limit && last !== undefined;
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
      const more = messages.length > limit;
      return {
        messages: messages.slice(0, limit),
        nextPageToken: more ? sealPageToken(`${offset + limit}`, list) : "",
      };
    },
  };
}

function pageSize(asked: number): number {
  return Math.min(asked || PAGE_SIZE.standard, PAGE_SIZE.most);
}

function createTimeMsOf(session: Session): number {
  const { seconds = 0n, nanos = 0 } = session.createTime ?? {};
  return Number(seconds) * 1_000 + Math.floor(nanos / 1e6);
}
