import type { Session } from "../../gen/parley/chat/v1/session_pb.js";
import { Failure } from "../failure.ts";
import type { SessionStore } from "../turns/ports.ts";
import { type MemoryState, type StoredSession, windowOf } from "./memory-state.ts";
import { sessionView, timestampMs } from "./record-views.ts";
import { withMetadata } from "./session-records.ts";

/** The half of the embedded store that keeps sessions. */
export function createMemorySessionStore(state: MemoryState): SessionStore {
  return {
    async createSession(session) {
      if (state.find(session) !== undefined) throw new Failure("SESSION_EXISTS");
      return viewOf(state.add(session));
    },

    async getSession(ref) {
      const session = state.find(ref);
      return session && viewOf(session);
    },

    async listSessions({ tenant, userId, limit, after }) {
      state.sweep();
      return [...state.sessions.values()]
        .filter((session) => session.ref.tenant === tenant && session.record.userId === userId)
        .sort((a, b) => comparePositions(positionOf(b), positionOf(a)))
        .filter((session) => after === undefined || comparePositions(positionOf(session), after) < 0)
        .slice(0, limit)
        .map(viewOf);
    },

    async updateSession(ref, metadata) {
      const session = state.find(ref);
      if (session === undefined) return undefined;
      session.record = withMetadata(session.record, metadata);
      session.updateTimeMs = state.now();
      state.touch(session);
      return viewOf(session);
    },

    async deleteSession(ref) {
      return state.remove(ref);
    },

    async listMessages(ref, { offset, limit }) {
      const page = state.find(ref)?.messages.slice(offset, offset + limit);
      return page?.flatMap(({ message }) => (message === undefined ? [] : [message]));
    },

    async readWindow(ref, messages) {
      const session = state.find(ref);
      return session && windowOf(session, messages);
    },

    async countActiveSessions() {
      state.sweep();
      return state.sessions.size;
    },
  };
}

function viewOf(session: StoredSession): Session {
  return sessionView(session.ref, { ...session, messageCount: session.messages.length });
}

function positionOf({ ref, record }: StoredSession): { createTimeMs: number; sessionId: string } {
  return { createTimeMs: timestampMs(record.createTime), sessionId: ref.sessionId };
}

/** By time, then by id: the order of Redis's sorted sets. */
function comparePositions(
  a: { createTimeMs: number; sessionId: string },
  b: { createTimeMs: number; sessionId: string },
): number {
  return a.createTimeMs - b.createTimeMs || (a.sessionId < b.sessionId ? -1 : a.sessionId > b.sessionId ? 1 : 0);
}
