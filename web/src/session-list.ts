import type { Parley } from "../../client/client.ts";
import type { Session } from "../../gen/parley/chat/v1/session_pb.js";
import { type Cell, createCell } from "./cell.ts";
import { isSessionGone, type Problem, problemOf } from "./problem.ts";

/** The sessions of a user, newest first. */
export interface SessionList {
  readonly state: Cell<SessionListState>;
  /** Reads the first page again, and as many sessions as were shown. */
  refresh(): Promise<void>;
  loadMore(): Promise<void>;
  /** Deletes a session; resolves to what went wrong, if anything did. A session that is gone already is fine. */
  remove(sessionId: string): Promise<Problem | undefined>;
}

export interface SessionListState {
  readonly sessions: readonly Session[];
  readonly nextPageToken: string;
  readonly loading: boolean;
  readonly problem?: Problem;
}

const PAGE_SIZE = 50;
/** The service's largest page. */
const MAX_PAGE_SIZE = 200;

export function createSessionList({ parley, userId }: { parley: Parley; userId: string }): SessionList {
  const state = createCell<SessionListState>({ sessions: [], nextPageToken: "", loading: false });

  let reads = 0;
  const read = async (request: { pageSize: number; pageToken: string }, before: readonly Session[]): Promise<void> => {
    const ticket = ++reads;
    const { problem: _, ...rest } = state.get();
    state.set({ ...rest, loading: true });
    try {
      const page = await parley.sessions.listSessions({ userId, ...request });
      // An answer that a newer question has overtaken is old news.
      if (ticket !== reads) return;
      state.set({ sessions: [...before, ...page.sessions], nextPageToken: page.nextPageToken, loading: false });
    } catch (error) {
      if (ticket === reads) state.set({ ...state.get(), loading: false, problem: problemOf(error) });
    }
  };

  return {
    state,
    refresh: () => {
      const pageSize = Math.min(Math.max(state.get().sessions.length, PAGE_SIZE), MAX_PAGE_SIZE);
      return read({ pageSize, pageToken: "" }, []);
    },
    loadMore: () => read({ pageSize: PAGE_SIZE, pageToken: state.get().nextPageToken }, state.get().sessions),
    async remove(sessionId) {
      let problem: Problem | undefined;
      try {
        await parley.sessions.deleteSession({ sessionId });
      } catch (error) {
        const told = problemOf(error);
        if (!isSessionGone(told)) problem = told;
      }
      if (problem === undefined) {
        state.set({
          ...state.get(),
          sessions: state.get().sessions.filter((session) => session.sessionId !== sessionId),
        });
      }
      return problem;
    },
  };
}

/** What a session is called: the title that this console gave it, else its id. */
export function nameOf(session: Session): string {
  const title = session.metadata?.title;
  return typeof title === "string" && title.trim() !== "" ? title : session.sessionId;
}
