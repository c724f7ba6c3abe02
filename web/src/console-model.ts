import type { Parley } from "../../client/client.ts";
import { type Cell, createCell } from "./cell.ts";
import { type Conversation, createConversation } from "./conversation.ts";
import type { Problem } from "./problem.ts";
import { createSessionList, type SessionList } from "./session-list.ts";
import type { Tabs } from "./tabs.ts";
import type { TurnMemory } from "./turn-memory.ts";

/** What the whole page is about: a user, that user's sessions, the one that is open. */
export interface ConsoleModel {
  readonly state: Cell<ConsoleState>;
  setUser(userId: string): void;
  openSession(sessionId: string): void;
  /** Opens an empty one, with a draft if one is given; one that is empty already stays as it is. */
  newSession(draft?: string): void;
  /** Deletes a session and leaves it, if it is open. */
  deleteSession(sessionId: string): Promise<Problem | undefined>;
  /** Opens what the address names; for the browser's back and forward. */
  followAddress(): void;
}

export interface ConsoleState {
  readonly userId: string;
  readonly list: SessionList;
  readonly conversation: Conversation;
  /** What is in sight: the conversation, or the Costs page in its place. */
  readonly view: ConsoleView;
}

export type ConsoleView = "session" | "costs";

/** Where the page keeps what outlives it. */
export interface ConsoleMemory {
  readUserId(): string;
  writeUserId(userId: string): void;
  /** What the address shows. */
  readView(): ConsoleView;
  /** Session that the address names; empty: none. */
  readAddress(): string;
  /** `replace`: without a new entry in the browser's history. */
  writeAddress(sessionId: string, options?: { replace: boolean }): void;
}

export function createConsoleModel({
  parley,
  memory,
  turnMemory,
  tabs,
  visible,
}: {
  parley: Parley;
  memory: ConsoleMemory;
  turnMemory: TurnMemory;
  tabs: Tabs;
  /** Whether the page is in sight. */
  visible: Cell<boolean>;
}): ConsoleModel {
  /** Open conversations of the user; their turns go on while another is looked at. */
  let open = new Map<string, Conversation>();
  const deleted = new Set<string>();

  const begin = (userId: string, list: SessionList, sessionId: string): Conversation => {
    const known = open.get(sessionId);
    if (known !== undefined && sessionId !== "") return known;
    const conversation = createConversation(sessionId, {
      parley,
      userId,
      memory: turnMemory,
      tabs,
      changed(named) {
        // A turn may end when another user has come to the page, or its session was deleted.
        if (state.get().list !== list) return;
        if (named !== "" && !deleted.has(named)) {
          open.set(named, conversation);
          if (isInSight(conversation) && memory.readAddress() !== named) memory.writeAddress(named, { replace: true });
        }
        void list.refresh();
      },
    });
    if (sessionId !== "") {
      open.set(sessionId, conversation);
      void conversation.open();
    }
    return conversation;
  };
  const isInSight = (conversation: Conversation): boolean =>
    state.get().conversation === conversation && state.get().view === "session";
  const watch = (): void => {
    const { conversation } = state.get();
    conversation.watched.set(visible.get() && isInSight(conversation));
  };
  /** Shows a conversation in place of the one that was shown. */
  const present = (next: ConsoleState): void => {
    const before = state.get().conversation;
    state.set(next);
    if (before !== next.conversation) before.watched.set(false);
    watch();
  };

  const firstUser = memory.readUserId();
  const firstList = createSessionList({ parley, userId: firstUser });
  const state = createCell<ConsoleState>({
    userId: firstUser,
    list: firstList,
    conversation: begin(firstUser, firstList, memory.readAddress()),
    view: memory.readView(),
  });
  watch();
  void firstList.refresh();
  visible.watch(() => {
    watch();
    if (visible.get()) void state.get().list.refresh();
  });

  const show = (sessionId: string): void => {
    const { userId, list, conversation, view } = state.get();
    if (conversation.state.get().sessionId === sessionId && sessionId !== "") return;
    present({ userId, list, conversation: begin(userId, list, sessionId), view });
  };
  const look = (view: ConsoleView): void => {
    if (state.get().view !== view) present({ ...state.get(), view });
  };
  /** Leaves a session that is not there any more. */
  const leave = (sessionId: string): void => {
    deleted.add(sessionId);
    open.get(sessionId)?.leave();
    open.delete(sessionId);
    for (const sent of turnMemory.of(sessionId)) turnMemory.forget(sent);
    if (state.get().conversation.state.get().sessionId === sessionId) {
      if (state.get().view === "session") memory.writeAddress("", { replace: true });
      show("");
    }
  };
  tabs.onNews((news) => {
    const { userId, list } = state.get();
    // Tabs of one browser may show different users.
    if ((news.kind === "session-deleted" ? news : news.sent).userId !== userId) return;
    switch (news.kind) {
      case "turn":
        open.get(news.sent.sessionId)?.follow(news.sent);
        break;
      case "turn-ended":
        open.get(news.sent.sessionId)?.heardOfEnd(news.sent);
        break;
      case "session-deleted":
        leave(news.sessionId);
    }
    void list.refresh();
  });

  return {
    state,
    setUser(userId) {
      if (userId === "" || userId === state.get().userId) return;
      for (const conversation of open.values()) conversation.leave();
      state.get().conversation.leave();
      open = new Map();
      memory.writeUserId(userId);
      const { view } = state.get();
      if (view === "session") memory.writeAddress("");
      const list = createSessionList({ parley, userId });
      present({ userId, list, conversation: begin(userId, list, ""), view });
      void list.refresh();
    },
    openSession(sessionId) {
      if (memory.readAddress() !== sessionId) memory.writeAddress(sessionId);
      look("session");
      show(sessionId);
    },
    newSession(draft = "") {
      if (memory.readAddress() !== "" || memory.readView() !== "session") memory.writeAddress("");
      look("session");
      const { sessionId, live } = state.get().conversation.state.get();
      if (sessionId !== "" || live.length > 0) show("");
      if (draft !== "") state.get().conversation.draft.set(draft);
    },
    async deleteSession(sessionId) {
      const problem = await state.get().list.remove(sessionId);
      if (problem !== undefined) return problem;
      tabs.tell({ kind: "session-deleted", userId: state.get().userId, sessionId });
      leave(sessionId);
      return undefined;
    },
    followAddress: () => {
      look(memory.readView());
      // The conversation waits behind the Costs page.
      if (memory.readView() === "costs") return;
      const sessionId = memory.readAddress();
      if (state.get().conversation.state.get().sessionId !== sessionId) show(sessionId);
    },
  };
}
